"""The port of the event stream for those who work it off: every event to one worker, and again to another until it is confirmed."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

from online.stores.ports import Event


class EventQueue(ABC):
    """The stored events of a scene, handed out to a group of workers."""

    @abstractmethod
    def take(self, scene: str, worker: str, limit: int, wait: float) -> list[tuple[str, Event]]:
        """Events with their positions that nobody was handed yet, oldest first; waits up to `wait` seconds for the first."""

    @abstractmethod
    def take_over(self, scene: str, worker: str, limit: int, idle: float) -> list[tuple[str, Event]]:
        """Events that were handed out `idle` seconds ago or longer and never confirmed; they are this worker's from now on."""

    @abstractmethod
    def still_mine(self, scene: str, worker: str, positions: Sequence[str]) -> set[str]:
        """Of these positions, those that are handed to this worker and not confirmed."""

    @abstractmethod
    def confirm(self, scene: str, positions: Sequence[str]) -> None:
        """These events are done; confirming twice is no error."""

    @abstractmethod
    def waiting(self, scene: str) -> tuple[int, int]:
        """(events that nobody was handed yet, events handed out and not confirmed)."""

    @abstractmethod
    def forget(self, scene: str, before: float) -> int:
        """Removes confirmed events that came before this moment (unix seconds); returns how many. Unconfirmed ones stay."""
