"""Days that were held, decided by a person: which can be, and what a decision leaves of the state."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from data_exchange_center.errors import DataError
from data_exchange_center.validation import validated
from offline.incremental.backlog import GivenUp, HeldDay
from offline.incremental.state import JobState, Verdict


def given(values: Mapping[str, Any]) -> Verdict:
    """The verdict of its values; DataError when they are none."""
    return validated(Verdict, values, "a verdict")


def held_day(state: JobState, date: str) -> HeldDay | GivenUp:
    """The day as it waits, or as it was given up.

    Raises:
        DataError: it was not held, or is learned already; the message says what it is instead, and what to do.
    """
    days: list[HeldDay | GivenUp] = [*state.waiting, *state.given_up]
    for day in days:
        if day.date == date:
            return day
    held = ", ".join(sorted(day.date for day in days)) or "none"
    if date not in state.finished:
        raise DataError(f"{date} was never done; run the job with --date {date} first (held days: {held})")
    outcome, by = state.finished[date], [one.by for one in state.verdicts if one.date == date]
    learned = [done for done, one in sorted(state.finished.items()) if date in one.learned]
    if outcome.outcome == "accepted":
        raise DataError(f"{date} was accepted by {by[-1]} and is learned; roll back to take that back")
    if learned:
        raise DataError(f"{date} is no held day: it was learned with {learned[-1]} (held days: {held})")
    raise DataError(f"{date} is no held day (held days: {held})")


def discarded(state: JobState, verdict: Verdict) -> JobState:
    """The state without a held day, which is given up by a person's word; DataError as `held_day`."""
    day = held_day(state, verdict.date)
    others = tuple(one for one in state.given_up if one.date != day.date)
    gone = GivenUp(day.date, day.rows, f"discarded by {verdict.by}: {verdict.why}", day.reasons)
    outcome = state.finished[day.date].model_copy(update={"outcome": "discarded"})
    return state.with_values(
        waiting=tuple(one for one in state.waiting if one.date != day.date),
        given_up=tuple(sorted((*others, gone), key=lambda one: one.date)),
        finished={**state.finished, day.date: outcome},
        verdicts=(*state.verdicts, verdict),
    )
