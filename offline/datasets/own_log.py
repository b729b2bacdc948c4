"""One's own log: a CSV or Parquet file of events, and optionally of items and users, through a YAML that maps its columns."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from data_exchange_center import columns as c
from data_exchange_center.dataset_info import Finding
from data_exchange_center.dataset_info import Labels as LabelSource
from data_exchange_center.errors import DataError
from data_exchange_center.workspace import sha256
from offline.datasets.canonical import LATEST, Dataset, Scale, assemble, codes
from offline.datasets.delimited import UnreadableRows
from offline.datasets.own_log_mapping import (
    EventLabels,
    ImpressionLabels,
    Interactions,
    Items,
    Labels,
    Mapping,
    OutcomeLabels,
    PositivesOnly,
    RatingLabels,
    Source,
    Users,
    read_mapping,
)
from offline.datasets.tabular import Read, Wanted, find_files, read_columns

EARLIEST = 100_000_000  # unix seconds, in 1973: a log in which every millisecond is older holds seconds
EVENT = "event"  # extra column of the interactions: the event's name, where the log has one
SOURCES: dict[str, LabelSource] = {
    "rating": "ratings",
    "events": "events",
    "impressions": "impressions",
    "outcome": "outcome",
    "positives_only": "positives_only",
}


def read_own_log(path: Path, base: Path, positive_above: float) -> Dataset:
    """Reads the log that a YAML maps. All files are read before it complains, so that one run names every kind of problem.

    Args:
        path: the YAML.
        base: folder that its relative file names start from.
        positive_above: threshold of a rating when the YAML gives none.

    Raises:
        DataUnavailable: the YAML or a file is not there.
        DataError: a wrong YAML, a missing column, times in another unit than declared, or no positive row at all.
        UnreadableRows: rows that do not fit; each kind of problem with its count and its first row's file and line.
    """
    mapping = read_mapping(path)
    problems: list[Finding] = []

    def collected(source: Source, wanted: dict[str, Wanted]) -> Read | None:
        try:
            return read_columns(source, base, wanted)
        except UnreadableRows as error:
            problems.extend(error.findings)
            return None

    log = collected(mapping.interactions, _event_columns(mapping.interactions))
    items = collected(mapping.items, _item_columns(mapping.items, mapping)) if mapping.items else None
    users = collected(mapping.users, _user_columns(mapping.users, mapping)) if mapping.users else None
    if problems or log is None:
        raise UnreadableRows(path, problems)
    _check_unit(path, mapping.interactions, log.table[c.TIMESTAMP])
    findings: list[Finding] = []
    item_table = _unique(items, c.ITEM_ID, findings) if items else None
    user_table = _unique(users, c.USER_ID, findings) if users else None
    events = _labelled(log, mapping.interactions, positive_above, findings)
    labels = mapping.interactions.labels
    if events.num_rows and not pc.any(pc.equal(events[c.LABEL], 1)).as_py():
        raise DataError(
            f"{path}: none of {events.num_rows} rows is a positive, so there is nothing to learn; {_seen(events, labels)}",
            field="interactions.labels",
        )
    scale = Scale(*labels.scale) if isinstance(labels, RatingLabels) and labels.scale else None
    return assemble(
        events,
        user_table,
        None if item_table is None else _with_titles(item_table),
        labels=SOURCES[labels.kind],
        place=log.place,
        scale=scale,
        findings=tuple(findings),
        rows_read=log.table.num_rows,
    )


def own_log_fingerprint(path: Path, base: Path) -> str:
    """SHA-256 over the YAML and the content of every file it names."""
    mapping = read_mapping(path)
    digest = hashlib.sha256(path.read_bytes())
    for source in (mapping.interactions, mapping.items, mapping.users):
        for file in find_files(source, base) if source else ():
            digest.update(f"{file.name} {sha256(file)}\n".encode())
    return digest.hexdigest()


def _check_unit(path: Path, log: Interactions, times: pa.ChunkedArray) -> None:
    """Refuses times that make sense in another unit only: they would all be read, as moments of another age."""
    if not len(times):
        return
    oldest, newest = pc.min_max(times).as_py().values()
    if oldest >= LATEST:
        advice = "give the unit ms" if log.time.unit == "s" and oldest < LATEST * 1000 else "write them in seconds"
    elif newest < EARLIEST and log.time.unit == "ms":
        advice = "give the unit s"
    else:
        return
    raise DataError(
        f"{path}: read as {log.time.unit}, the times of {log.time.column!r} lie between {_day(oldest)} and {_day(newest)}; "
        f"that is another unit: {advice}",
        field="interactions.time.unit",
    )


def _day(seconds: int) -> str:
    return str(np.datetime64(seconds, "s").astype("datetime64[D]"))


def _seen(events: pa.Table, labels: Labels) -> str:
    """What stands where positives were looked for, and what to change."""
    if isinstance(labels, RatingLabels):
        low, high = pc.min_max(events[c.RATING]).as_py().values()
        return f"ratings in {labels.column!r} go from {low:g} to {high:g}: set `above`"
    if isinstance(labels, EventLabels | ImpressionLabels):
        names = pc.value_counts(events[EVENT].combine_chunks()).to_pylist()
        common = sorted(names, key=lambda one: -one["counts"])[:5]
        shown = ", ".join(f"{one['values']!r} ({one['counts']})" for one in common)
        return f"{labels.column!r} holds {shown}: correct `positive`"
    return "see the column of the labels"


def _event_columns(log: Interactions) -> dict[str, Wanted]:
    wanted = {
        c.USER_ID: Wanted(log.user.column, log.user.type),
        c.ITEM_ID: Wanted(log.item.column, log.item.type),
        c.TIMESTAMP: Wanted(log.time.column, log.time.unit),
    }
    match log.labels:
        case RatingLabels(column=column):
            wanted[c.RATING] = Wanted(column, "float32")
        case EventLabels(column=column) | ImpressionLabels(column=column):
            wanted[EVENT] = Wanted(column, "string")
        case OutcomeLabels(column=column):
            wanted[c.LABEL] = Wanted(column, "flag")
    return wanted


def _item_columns(items: Items, mapping: Mapping) -> dict[str, Wanted]:
    wanted = {c.ITEM_ID: Wanted(items.id, mapping.interactions.item.type)}
    if items.title:
        wanted[c.TITLE] = Wanted(items.title, "string", nullable=True)
    if items.terms:
        wanted[c.TERMS] = Wanted(items.terms.column, "terms", nullable=True, separator=items.terms.separator)
    if items.year:
        wanted[c.YEAR] = Wanted(items.year, "year", nullable=True)
    return wanted | {name: Wanted(one.column, one.type, nullable=True) for name, one in items.attributes.items()}


def _user_columns(users: Users, mapping: Mapping) -> dict[str, Wanted]:
    wanted = {c.USER_ID: Wanted(users.id, mapping.interactions.user.type)}
    return wanted | {name: Wanted(one.column, one.type, nullable=True) for name, one in users.attributes.items()}


def _labelled(log: Read, interactions: Interactions, positive_above: float, findings: list[Finding]) -> pa.Table:
    """The log with `label`, `rating` (null where there is none) and `position`, without the rows that count as nothing."""
    labels, table = interactions.labels, log.table
    table = table.append_column(c.POSITION, pa.array(np.arange(table.num_rows, dtype=np.int64)))
    if isinstance(labels, EventLabels | ImpressionLabels):
        findings += _names_never_met(table[EVENT], labels)
        table = _without_ignored(table, log, labels, findings)
        positive = pc.is_in(table[EVENT], value_set=pa.array(labels.positive))
    elif isinstance(labels, RatingLabels):
        above = positive_above if labels.above is None else labels.above
        positive = pc.greater(pc.cast(table[c.RATING], pa.float64()), above)
    elif isinstance(labels, PositivesOnly):
        positive = pa.array(np.ones(table.num_rows, dtype=bool))
    else:
        positive = pc.cast(table[c.LABEL], pa.bool_())
        table = table.drop_columns([c.LABEL])
    table = table.append_column(c.LABEL, pc.cast(positive, pa.int8()))
    if c.RATING not in table.column_names:
        table = table.append_column(c.RATING, pa.nulls(table.num_rows, pa.float32()))
    if isinstance(labels, ImpressionLabels):
        table = _filtered(
            table, log, superseded(table, labels.window), "impression that led to a positive event", findings
        )
    return table


def _names_never_met(events: pa.ChunkedArray, labels: EventLabels | ImpressionLabels) -> list[Finding]:
    """Names of events in the YAML that no row has: a typing error, or the other case."""
    impressions = labels.impression if isinstance(labels, ImpressionLabels) else []
    met = pc.unique(events).to_pylist()
    there = ", ".join(map(repr, met[:10]))
    return [
        Finding(problem=f"event {name!r} of the YAML is in no row", rows=0, first=f"there are {there}", action="kept")
        for name in (*labels.positive, *impressions, *labels.ignore)
        if name not in met
    ]


def _without_ignored(
    table: pa.Table, log: Read, labels: EventLabels | ImpressionLabels, findings: list[Finding]
) -> pa.Table:
    ignored = pc.is_in(table[EVENT], value_set=pa.array(labels.ignore, pa.string())).to_numpy()
    table = _filtered(table, log, ignored, "event that the YAML ignores", findings)
    if isinstance(labels, EventLabels):
        return table
    declared = pa.array([*labels.positive, *labels.impression])
    unknown = pc.invert(pc.is_in(table[EVENT], value_set=declared)).to_numpy()
    return _filtered(table, log, unknown, "event that the YAML does not name", findings)


def superseded(events: pa.Table, window: int | None) -> np.ndarray:
    """Which negatives are followed by a positive of the same user and item, at most `window` seconds later. -> [rows] bool."""
    user, item = (codes(events[column])[0] for column in (c.USER_ID, c.ITEM_ID))
    pair = user * (int(item.max(initial=0)) + 1) + item
    times, labels = events[c.TIMESTAMP].to_numpy(), events[c.LABEL].to_numpy()
    order = np.lexsort((labels, times, pair))  # in one second, the impression comes before what it led to
    rows = len(order)
    place = np.where(labels[order] == 1, np.arange(rows), rows)
    following = np.minimum.accumulate(place[::-1])[::-1]  # place of the next positive, whoever's it is
    there = np.flatnonzero((following < rows) & (labels[order] == 0))
    after = following[there]
    same = pair[order[after]] == pair[order[there]]
    soon = same if window is None else same & (times[order[after]] - times[order[there]] <= window)
    marked = np.zeros(rows, dtype=bool)
    marked[order[there[soon]]] = True
    return marked


def _filtered(table: pa.Table, log: Read, bad: np.ndarray, problem: str, findings: list[Finding]) -> pa.Table:
    if not bad.any():
        return table
    row = table[c.POSITION][int(np.argmax(bad))].as_py()
    shown = ", ".join(f"{name} {log.table[name][row].as_py()!r}" for name in (c.USER_ID, c.ITEM_ID, EVENT))
    findings.append(Finding(problem=problem, rows=int(bad.sum()), first=f"{log.place(row)}: {shown}", action="dropped"))
    return table.filter(pa.array(~bad))


def _unique(read: Read, key: str, findings: list[Finding]) -> pa.Table:
    """The table with the first row of each id; later ones are counted."""
    number, _ = codes(read.table[key])
    first = np.zeros(len(number), dtype=bool)
    first[np.unique(number, return_index=True)[1]] = True
    if first.all():
        return read.table
    row = int(np.argmin(first))
    shown = f"{read.place(row)}: {key} {read.table[key][row].as_py()!r}"
    findings.append(Finding(problem=f"{key} was there before", rows=int((~first).sum()), first=shown, action="dropped"))
    return read.table.filter(pa.array(first))


def _with_titles(items: pa.Table) -> pa.Table:
    """The table with an empty title where there is none."""
    if c.TITLE not in items.column_names:
        return items
    place = items.column_names.index(c.TITLE)
    return items.set_column(place, c.TITLE, pc.fill_null(items[c.TITLE], ""))
