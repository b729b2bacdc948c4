"""Work done ahead by threads, its results handed out in the order of the tasks, however many threads there are."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

T = TypeVar("T")
Task = Callable[[], Iterator[T]]
_WAIT_S = 0.2  # how often a thread that waits looks whether it is still wanted


@dataclass
class _Results(Generic[T]):
    """What one task has yielded so far: values, then `None`, or the error that ended it."""

    task: Task[T]
    ready: queue.Queue[tuple[T] | BaseException | None] = field(default_factory=lambda: queue.Queue(maxsize=2))


def in_order(tasks: Sequence[Task[T]], *, workers: int, ahead: int) -> Iterator[tuple[int, T]]:
    """Runs the tasks in threads and yields (number of the task, value), task after task.

    Args:
        tasks: each is called once and iterated.
        workers: threads; 0 does the work in the caller's.
        ahead: tasks that may be begun or finished before their turn, besides those that the workers are at. A task
            holds two values at most until its turn comes, so that memory does not grow with the number of tasks.

    Raises:
        Whatever a task raises, when its turn comes.
    """
    if workers == 0:
        for number, task in enumerate(tasks):
            for value in task():
                yield number, value
        return
    stopped = threading.Event()
    begun: queue.SimpleQueue[_Results[T] | None] = queue.SimpleQueue()
    for _ in range(workers):
        threading.Thread(target=_work, args=(begun, stopped), daemon=True, name="marquee-reader").start()
    waiting: list[_Results[T]] = []
    following = 0
    try:
        for number in range(len(tasks)):
            while following < len(tasks) and len(waiting) < workers + ahead:
                waiting.append(_Results(tasks[following]))
                begun.put(waiting[-1])
                following += 1
            ready = waiting.pop(0).ready
            while (result := ready.get()) is not None:
                if isinstance(result, BaseException):
                    raise result
                yield number, result[0]
    finally:
        stopped.set()
        for _ in range(workers):
            begun.put(None)


def _work(begun: queue.SimpleQueue[_Results[T] | None], stopped: threading.Event) -> None:
    while (results := begun.get()) is not None and not stopped.is_set():
        end: BaseException | None = None
        try:
            for value in results.task():
                if not _put(results, (value,), stopped):
                    return
        except BaseException as error:  # noqa: BLE001 - it is raised in the caller's thread
            end = error
        if not _put(results, end, stopped):
            return


def _put(results: _Results[T], value: tuple[T] | BaseException | None, stopped: threading.Event) -> bool:
    while not stopped.is_set():
        try:
            results.ready.put(value, timeout=_WAIT_S)
        except queue.Full:
            continue
        return True
    return False
