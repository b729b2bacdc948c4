"""From parsed rows to the three canonical tables: what is dropped, what is kept, what is counted.

The policy, the same for every dataset:

- A row that cannot be parsed stops everything, named by file and line.
- A row with an impossible rating (outside the scale) or an impossible time (not after 1970, or beyond the year 2100) is
  dropped and counted: it says nothing that can be trusted.
- A row that repeats an earlier one in every column (user, item, timestamp, rating, event) is dropped and counted; the first stays.
  Rows that differ in any of these are all kept: a user may well do the same thing twice.
- An event of a user or an item that the dataset's own tables do not list is kept, and gets a bare row there.
- Rows keep their order, and `position` is the 0-based place among the rows read, so that gaps show what was dropped.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from data_exchange_center import columns as c
from data_exchange_center.dataset_info import Finding, Labels
from data_exchange_center.errors import DataError
from data_exchange_center.tables import INTERACTIONS, ITEMS, STRINGS, USERS, same_id_type

LATEST = 4_102_444_800  # 2100-01-01, unix seconds: later ones are milliseconds or noise


@dataclass(frozen=True)
class Dataset:
    """The three canonical tables and what was met on the way.

    Attributes:
        users, items, interactions: as in data_exchange_center/tables.py.
        labels: where the labels come from.
        rows_read: interactions before any was dropped.
        findings: problems that did not stop the reading.
        truth: name -> array of the generator's preference structure; empty for real data.
    """

    users: pa.Table
    items: pa.Table
    interactions: pa.Table
    labels: Labels
    rows_read: int
    findings: tuple[Finding, ...] = ()
    truth: dict[str, np.ndarray] = field(default_factory=dict)

    def validate(self) -> Dataset:
        """Returns itself, or raises DataError for the first table that breaks its schema."""
        USERS.validate(self.users)
        ITEMS.validate(self.items)
        INTERACTIONS.validate(self.interactions)
        same_id_type(self.users, self.items, self.interactions)
        if not self.rows_read:
            raise DataError("the log has no rows")
        if not self.interactions.num_rows:
            raise DataError(
                "the dataset has no interactions left; see what was dropped: " + "; ".join(map(str, self.findings))
            )
        return self


@dataclass(frozen=True)
class Scale:
    """The ratings that a dataset can hold: from `low` to `high`, in steps of `step` (0: any value between)."""

    low: float
    high: float
    step: float = 0.0

    def holds(self, ratings: np.ndarray) -> np.ndarray:
        """Which ratings are on the scale; NaN is not. [rows] float32 -> [rows] bool."""
        inside = (ratings >= self.low) & (ratings <= self.high)
        if self.step:
            steps = (ratings - self.low) / self.step
            inside &= np.abs(steps - np.round(steps)) < 1e-4
        return inside


def assemble(
    events: pa.Table,
    users: pa.Table | None,
    items: pa.Table | None,
    *,
    labels: Labels,
    place: Callable[[int], str],
    scale: Scale | None = None,
    findings: tuple[Finding, ...] = (),
    rows_read: int | None = None,
) -> Dataset:
    """Applies the policy above and returns validated tables.

    Args:
        events: user_id, item_id, timestamp, rating (float32, may be null) and label, in the order of the log; a column
            `position` when rows were dropped before, else it is made.
        users, items: one row per id, or None where the log has no such file.
        labels: where the labels come from.
        place: position of a row -> "file:line", for findings; slow, called only for the first row of a problem.
        scale: of the ratings.
        findings: what was met before.
        rows_read: rows before any was dropped; by default those of `events`.
    """
    if c.POSITION not in events.column_names:
        events = events.append_column(c.POSITION, pa.array(np.arange(events.num_rows, dtype=np.int64)))
    rows_read = events.num_rows if rows_read is None else rows_read
    found = list(findings)

    def drop(bad: np.ndarray, problem: str) -> None:
        nonlocal events
        if bad.any():
            found.append(_finding(events, bad, problem, "dropped", place))
            events = events.filter(pa.array(~bad))

    if scale is not None:
        ratings = events[c.RATING].to_numpy()
        drop(~scale.holds(ratings), f"rating not on the scale {scale.low:g} to {scale.high:g}")
    times = events[c.TIMESTAMP].to_numpy()
    drop((times <= 0) | (times >= LATEST), "timestamp not between 1970 and 2100")
    drop(repeated(events), "exact repetition of an earlier row")

    users, unlisted_users = _with_every_id(users, events[c.USER_ID], c.USER_ID)
    items, unlisted_items = _with_every_id(items, events[c.ITEM_ID], c.ITEM_ID)
    for column, unlisted in ((c.USER_ID, unlisted_users), (c.ITEM_ID, unlisted_items)):
        if len(unlisted):
            bad = pc.is_in(events[column], value_set=unlisted).to_numpy()
            found.append(_finding(events, bad, f"{column} not in its own file", "kept", place))
    order = [c.USER_ID, c.ITEM_ID, c.TIMESTAMP, c.POSITION, c.RATING, c.LABEL]
    rest = [name for name in events.column_names if name not in order]
    return Dataset(
        users=users,
        items=items,
        interactions=events.select([*order, *rest]).combine_chunks(),
        labels=labels,
        rows_read=rows_read,
        findings=tuple(found),
    ).validate()


def repeated(events: pa.Table) -> np.ndarray:
    """Which rows repeat an earlier one in every column but the position. -> [rows] bool."""
    user, item = (codes(events[column])[0] for column in (c.USER_ID, c.ITEM_ID))
    pair = user * (int(item.max(initial=0)) + 1) + item
    ordered = np.sort(pair)
    again = np.unique(ordered[1:][ordered[1:] == ordered[:-1]])
    marked = np.zeros(events.num_rows, dtype=bool)
    if len(again):  # most logs hold each pair once; only the others are compared in full
        places = np.flatnonzero(np.isin(pair, again))
        rest = [name for name in events.column_names if name not in (c.USER_ID, c.ITEM_ID, c.POSITION)]
        frame = events.select(rest).take(pa.array(places)).to_pandas().assign(pair=pair[places])
        marked[places] = frame.duplicated(keep="first").to_numpy()
    return marked


def codes(ids: pa.ChunkedArray) -> tuple[np.ndarray, pa.Array]:
    """Numbers ids in the order of their first appearance: ([rows] int64 codes, [distinct] ids)."""
    encoded = pc.dictionary_encode(ids.combine_chunks())
    if isinstance(encoded, pa.ChunkedArray):
        encoded = encoded.chunk(0) if encoded.num_chunks else pa.array([], ids.type).dictionary_encode()
    return encoded.indices.to_numpy().astype(np.int64), encoded.dictionary


def years(titles: pa.ChunkedArray | pa.Array) -> pa.Array:
    """The year in the last parentheses of each title, as in `Heat (1995)` or `Show (2006-2007)`; 0 when there is none.

    Returns:
        int64, one per title.
    """
    text = titles.combine_chunks() if isinstance(titles, pa.ChunkedArray) else titles
    found = pc.extract_regex(text, r".*\((?P<year>\d{4})(?:\s*[-–]\s*\d{0,4})?\s*\)").field("year")
    numbers = pc.fill_null(pc.cast(pc.if_else(pc.equal(found, ""), None, found), pa.int64()), 0)
    return pc.if_else(pc.and_(pc.greater_equal(numbers, 1870), pc.less_equal(numbers, 2100)), numbers, 0)


def term_lists(text: pa.ChunkedArray, separator: str, nothing: str = "") -> pa.ChunkedArray:
    """Splits `Action|Comedy` into lists; empty, null and `nothing` give an empty list. Terms are trimmed and stay unique."""
    return clean_terms([(one or "").split(separator) for one in text.to_pylist()], nothing)


def clean_terms(lists: Iterable[Sequence[str | None] | None], nothing: str = "") -> pa.ChunkedArray:
    """One list of terms for each: trimmed, each once, in their order, without empty ones, nulls and `nothing`."""
    trimmed = ([(one or "").strip() for one in terms or ()] for terms in lists)
    values = [list(dict.fromkeys(one for one in terms if one and one != nothing)) for terms in trimmed]
    return pa.chunked_array([pa.array(values, STRINGS)])


def _finding(events: pa.Table, bad: np.ndarray, problem: str, action: str, place: Callable[[int], str]) -> Finding:
    row = int(np.argmax(bad))
    seen = {name: events[name][row].as_py() for name in (c.USER_ID, c.ITEM_ID, c.RATING, c.TIMESTAMP)}
    shown = ", ".join(f"{name} {value!r}" for name, value in seen.items() if value is not None)
    first = f"{place(events[c.POSITION][row].as_py())}: {shown}"
    return Finding.model_validate({"problem": problem, "rows": int(bad.sum()), "first": first, "action": action})


def _with_every_id(table: pa.Table | None, seen: pa.ChunkedArray, key: str) -> tuple[pa.Table, pa.Array]:
    """The table with a bare row for each id that only events have, and those ids (none when there is no table)."""
    distinct = pc.unique(seen)
    distinct = distinct.take(pc.sort_indices(distinct))
    if table is None:
        return pa.table({key: distinct}), pa.array([], seen.type)
    unlisted = distinct.filter(pc.invert(pc.is_in(distinct, value_set=table[key].combine_chunks())))
    if not len(unlisted):
        return table.combine_chunks(), unlisted
    bare = {field.name: _bare(field, len(unlisted)) for field in table.schema if field.name != key}
    return pa.concat_tables(
        [table, pa.table({key: unlisted, **bare}).select(table.column_names)]
    ).combine_chunks(), unlisted


def _bare(field: pa.Field, rows: int) -> pa.Array:
    """Values of an attribute that nobody told: empty title, no terms, year 0, else null."""
    empty = {c.TITLE: "", c.TERMS: [], c.YEAR: 0}
    return pa.array([empty.get(field.name)] * rows, field.type)
