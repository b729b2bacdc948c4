"""A worker that dies costs its test and not the whole run.

xdist 3.8 puts all that a dead worker ever had back into the queue, with what was done long ago. A worker that gets such a unit has
nothing to run, so it never reports and never gets another one: the run hangs. And the test that killed the worker would be
run again. Here the dead worker's unfinished tests alone go back, without the one at which it died, which xdist reports as failed.
"""

from __future__ import annotations

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
        for other in self.assigned_work:
            self._reschedule(other)
        return pending[0] if pending else None


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> Scheduling | None:
    """Takes the place of xdist's own for `--dist loadgroup`."""
    return CrashSafeScheduling(config, log) if config.getvalue("dist") == "loadgroup" else None
