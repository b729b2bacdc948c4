"""How the tests are shared out: a file's tests to one worker, the longest files first, and a worker that dies costs its test alone.

`--dist loadfile`, so that what a module makes for its tests is made once. xdist's groups (`--dist loadgroup`) would say the
same file by file, but xdist 3.8 does not see them any more since pytest 9.2 (pytest-dev/pytest-xdist#1386). Files that use the
same servers or graphs make one unit (`UNITS`). Two workers end together when the long units come first (`LONGEST_FIRST`).

xdist 3.8 puts all that a dead worker ever had back into the queue, with what was done long ago. A worker that gets such a unit has
nothing to run, so it never reports and never gets another one: the run hangs. And the test that killed the worker would be
run again. Here the dead worker's unfinished tests alone go back, without the one at which it died, which xdist reports as failed.
And where two workers die together, xdist itself falls: it sends work to the second one, whose end it has not been told yet, or to
the one in a dead one's place, which has not collected its tests yet. Here the former's work goes back when its end is told,
and the latter gets its work when it reports what it collected.
"""

from __future__ import annotations

from contextlib import suppress

import pytest
from xdist.remote import Producer
from xdist.scheduler import LoadFileScheduling, Scheduling
from xdist.workermanage import WorkerController

UNITS = {
    "tests/contract/": "tests/contract/",  # a server each adapter
    "tests/unit/rank/test_packed_graph.py": "tests/unit/rank/test_extreme_values.py",  # the same two graphs
}
LONGEST_FIRST = (  # more than ten seconds; a file that is not here comes after these, those with more tests first
    "tests/contract/",
    "tests/unit/rows/test_reader.py",
    "tests/e2e/test_atomic_release.py",
    "tests/e2e/test_proofs.py",
    "tests/unit/training/test_distributed.py",
    "tests/e2e/test_crash.py",
    "tests/e2e/test_serving.py",
    "tests/e2e/test_click_demo.py",
    "tests/e2e/test_blocking_items.py",
    "tests/unit/incremental/test_chain_scene.py",
    "tests/unit/rank/test_extreme_values.py",
    "tests/unit/models/test_zoo.py",
    "tests/e2e/test_feature_server.py",
    "tests/e2e/test_predict.py",
    "tests/unit/incremental/test_job.py",
    "tests/unit/incremental/test_daily_chain.py",
    "tests/unit/docker/test_secrets.py",
)


def unit_of(test: str) -> str:
    """The unit that a test belongs to: its file, unless several files share what they need."""
    return next((unit for start, unit in UNITS.items() if test.startswith(start)), test.split("::", 1)[0])


class UnitScheduling(LoadFileScheduling):
    """`--dist loadfile` by units, with what is left of a dead worker's tests given to the others."""

    def _split_scope(self, nodeid: str) -> str:
        return unit_of(nodeid)

    def remove_node(self, node: WorkerController) -> str | None:
        units = self.assigned_work.pop(node)
        left = {scope: [name for name, done in unit.items() if not done] for scope, unit in units.items()}
        pending = [name for names in left.values() for name in names]
        for scope, names in left.items():
            if rest := [name for name in names if name != pending[0]]:
                self.workqueue[scope] = dict.fromkeys(rest, False)
        if not pending:
            return None
        for other in self.assigned_work:
            self._reschedule(other)
        return pending[0]

    def _reschedule(self, node: WorkerController) -> None:
        if node in self.registered_collections:
            super()._reschedule(node)

    def _assign_work_unit(self, node: WorkerController) -> None:
        longest = next((unit for unit in LONGEST_FIRST if unit in self.workqueue), next(iter(self.workqueue)))
        self.workqueue.move_to_end(longest, last=False)
        # xdist notes the unit as the worker's before it sends it, so that remove_node finds it there
        with suppress(OSError):
            super()._assign_work_unit(node)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> Scheduling | None:
    """Takes the place of xdist's own for `--dist loadfile`."""
    return UnitScheduling(config, log) if config.getvalue("dist") == "loadfile" else None
