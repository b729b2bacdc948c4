"""A worker that dies costs its test and not the whole run.

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
from xdist.scheduler import LoadGroupScheduling, Scheduling
from xdist.workermanage import WorkerController


class CrashSafeScheduling(LoadGroupScheduling):
    """`--dist loadgroup`, with what is left of a dead worker's tests given to the others."""

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
        # xdist notes the unit as the worker's before it sends it, so that remove_node finds it there
        with suppress(OSError):
            super()._assign_work_unit(node)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> Scheduling | None:
    """Takes the place of xdist's own for `--dist loadgroup`."""
    return CrashSafeScheduling(config, log) if config.getvalue("dist") == "loadgroup" else None
