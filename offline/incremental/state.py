"""What the daily job knows between two days, in one file that is replaced as a whole: a job took place entirely, or not at all."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from data_exchange_center.errors import DataError
from data_exchange_center.validation import validated
from data_exchange_center.workspace import read_json, write_json
from offline.incremental.backlog import GivenUp, HeldDay
from offline.incremental.day_fit import DayFit

STATE = "state.json"


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Outcome(_Model):
    """How a day ended.

    Attributes:
        outcome: promoted, held, or what a person decided about a day that was held. reasons: why it was held.
        rows_sha256: of the day's archived rows.
        learned: days whose rows the promoted candidate learned from. release: of it, "" without one.
    """

    outcome: Literal["promoted", "held", "accepted", "discarded"]
    reasons: tuple[str, ...]
    rows_sha256: str
    learned: tuple[str, ...]
    release: str


class Live(_Model):
    """A promoted run: the name of its folder, its release ("" without one), and the date it was promoted on ("" of the first)."""

    run: str
    release: str
    date: str


class Verdict(_Model):
    """What a person decided about a day that was held: it is learned all the same, or never tried again.

    Attributes:
        by, at, why: who, when (UTC), and for what reason.
    """

    date: str
    verdict: Literal["accepted", "discarded"]
    by: str
    at: str
    why: str


class JobState(_Model):
    """The whole.

    Attributes:
        promoted: runs whose folders are kept, oldest first; the last one is live.
        fits: of good days, before they were learned.
        replayed: days that may be replayed.
        waiting: the backlog. given_up: quarantined days and those beyond the backlog's limits.
        finished: date -> outcome.
        verdicts: every one, in the order in which they were given.
    """

    promoted: tuple[Live, ...]
    fits: tuple[DayFit, ...]
    replayed: tuple[str, ...]
    waiting: tuple[HeldDay, ...] = ()
    given_up: tuple[GivenUp, ...] = ()
    finished: dict[str, Outcome] = {}
    verdicts: tuple[Verdict, ...] = ()

    @property
    def live(self) -> Live:
        """The run that answers."""
        return self.promoted[-1]

    def with_values(self, **values: Any) -> JobState:
        """A copy with some of it replaced."""
        return self.model_copy(update=values)

    def save(self, folder: Path) -> None:
        """Writes it atomically."""
        write_json(folder / STATE, self.model_dump(mode="json"))


def load_state(folder: Path) -> JobState:
    """Reads the state; DataError when there is none, or one that is broken."""
    if not (folder / STATE).exists():
        raise DataError(f"{folder}: no first model; run offline/incremental/s1_init_train.py")
    return validated(JobState, read_json(folder / STATE), str(folder / STATE))
