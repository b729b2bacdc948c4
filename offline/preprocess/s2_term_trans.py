"""Split interactions -> point-in-time features of every known row, and the serving snapshot of every cut.

Rows and snapshots come from the same expressions (offline/preprocess/expressions.py): a row probes them at its own timestamp, a
snapshot probes each user one second after their last known event and each item one second after the log's last known event.
"""

from __future__ import annotations

import argparse
import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ibis
import ibis.expr.types as ir
import pyarrow as pa
import pyarrow.compute as pc
from ibis.backends import BaseBackend
from tqdm import tqdm

from data_exchange_center import columns as c
from data_exchange_center.axes import Axes, axes_of, term_length
from data_exchange_center.errors import DataError
from data_exchange_center.feature_spec import FeatureSpec, load_spec
from data_exchange_center.settings import Settings
from data_exchange_center.step import parser, run_step
from data_exchange_center.tables import (
    FEATURE_ROWS,
    ITEM_FEATURES,
    ITEM_STANDING,
    SPLIT_INTERACTIONS,
    USER_FEATURES,
    USER_RECENT,
    Table,
)
from data_exchange_center.workspace import CUTS, Workspace, atomic_path, read_table, write_json
from offline.preprocess.engine import connect, register, write_parquet
from offline.preprocess.expressions import ITEM_FEATURES as KNOWN_OF_ITEMS
from offline.preprocess.expressions import USER_FEATURES as KNOWN_OF_USERS
from offline.preprocess.expressions import (
    item_features,
    item_timeline,
    judged_events,
    user_features,
    user_timeline,
)
from offline.preprocess.feature_columns import EntityColumns, entity_columns, typed
from offline.preprocess.standings import item_standing, user_recent

log = logging.getLogger("marquee")


@dataclass(frozen=True)
class Inputs:
    """What every part of the step works on."""

    engine: BaseBackend
    events: ir.Table
    users: ir.Table
    items: ir.Table
    user_columns: EntityColumns
    item_columns: EntityColumns
    axes: Axes
    history_length: int
    busiest_user: int
    busiest_item: int


def cuts_of(settings: Settings) -> tuple[str, ...]:
    """Cuts that get a snapshot: all that the release may know."""
    return CUTS if settings.split.holdout == "none" else CUTS[:-1]


def rows_of(events: ir.Table, cut: str) -> ir.Table:
    """The split interactions that are known at a cut."""
    known = {
        "early": events.early,
        "train": events[c.SPLIT] == c.TRAIN,
        "offline": events[c.SPLIT] != c.ONLINE,
        "all": ibis.literal(True),
    }
    return events.filter(known[cut])


def compute_features(settings: Settings, cuts: Sequence[str] | None = None, first_row: int = 0) -> dict[str, Any]:
    """Writes features/rows.parquet, features/axes.json and features/<cut>/{users,items}.parquet; beside those of the last cut,
    which a release is packed from, what later events are judged against (standings.py).

    Rows that the release may not know (the online ones under HOLDOUT=online) get no features and feed none.

    Args:
        settings: of the run.
        cuts: that get a snapshot, the last one being that of the rows; by default all that the release may know.
        first_row: rows with a smaller row_id feed the others, and are not asked for themselves.

    Returns:
        Rows and columns written, and seconds, per table.

    Raises:
        SpecError: the spec declares a feature that nothing provides, or arrays of contradicting lengths.
        DataError: a table is missing or breaks its contract.
    """
    workspace = Workspace(settings)
    spec = load_spec(settings.features.spec)
    cuts = cuts or cuts_of(settings)
    inputs = _read(settings, workspace, spec)
    written: dict[str, dict[str, Any]] = {}
    with tqdm(total=len(cuts) * 2 + 3, desc="features", unit="table", leave=False) as progress:
        for cut in cuts:
            known = rows_of(inputs.events, cut)
            for name, contract, table in _tables(inputs, cut, known, with_rows=cut == cuts[-1], first_row=first_row):
                started = time.perf_counter()
                rows = _write(inputs.engine, workspace.features / name, contract, table)
                written[name] = {"rows": rows, "seconds": round(time.perf_counter() - started, 2)}
                progress.update()
    write_json(workspace.features / "axes.json", inputs.axes.as_json())
    return {
        "user_features": len(inputs.user_columns.names),
        "item_features": len(inputs.item_columns.names),
        "defaults_for": [*inputs.user_columns.absent, *inputs.item_columns.absent],
        "terms": len(inputs.axes.terms),
        "cuts": list(cuts),
        "tables": written,
        "rows": written["rows.parquet"]["rows"],
        "written": str(workspace.features),
    }


def _read(settings: Settings, workspace: Workspace, spec: FeatureSpec) -> Inputs:
    events = SPLIT_INTERACTIONS.validate(read_table(workspace.split / "interactions.parquet"))
    users = read_table(workspace.tables / "users.parquet")
    items = read_table(workspace.tables / "items.parquet")
    engine = connect(settings.features.engine)
    return Inputs(
        engine,
        register(engine, "interactions", events),
        register(engine, "users", users),
        register(engine, "items", items),
        entity_columns(c.USER_ID, spec.user_features, KNOWN_OF_USERS, users.column_names),
        entity_columns(c.ITEM_ID, spec.item_features, KNOWN_OF_ITEMS, items.column_names),
        axes_of(items, term_length(spec)),
        settings.features.history_length,
        *(_most_events(events, key) for key in (c.USER_ID, c.ITEM_ID)),
    )


def _most_events(events: pa.Table, key: str) -> int:
    counts = events.group_by(key).aggregate([([], "count_all")])
    return int(pc.max(counts["count_all"]).as_py() or 0)


def _tables(
    inputs: Inputs, cut: str, known: ir.Table, *, with_rows: bool, first_row: int = 0
) -> Iterator[tuple[str, Table, ir.Table]]:
    """Yields (file, contract, expression) of a cut's tables."""
    judged = inputs.engine.create_table(f"judged_{cut}", judged_events(known))
    if not judged.count().execute():
        raise DataError(f"no event is known at cut {cut!r}; the log is too small for this split")
    users = user_timeline(
        judged,
        inputs.items,
        axes=inputs.axes,
        history_length=inputs.history_length,
        busiest=inputs.busiest_user,
        wanted=inputs.user_columns.computed,
    )
    items = item_timeline(
        judged, inputs.items, axes=inputs.axes, busiest=inputs.busiest_item, wanted=inputs.item_columns.computed
    )
    if with_rows:  # snapshot and rows ask the same timelines
        users, items = users.stored(inputs.engine.create_table), items.stored(inputs.engine.create_table)
    probes = judged.group_by(c.USER_ID).aggregate(**{c.TIMESTAMP: judged[c.TIMESTAMP].max() + 1})
    yield (
        f"{cut}/users.parquet",
        USER_FEATURES,
        _snapshot(user_features(users, probes), inputs.users, inputs.user_columns),
    )
    end = judged[c.TIMESTAMP].max().execute() + 1
    probes = inputs.items.select(c.ITEM_ID, **{c.TIMESTAMP: ibis.literal(end, "int64")})
    yield (
        f"{cut}/items.parquet",
        ITEM_FEATURES,
        _snapshot(item_features(items, probes), inputs.items, inputs.item_columns),
    )
    if with_rows:
        yield f"{cut}/item_standing.parquet", ITEM_STANDING, item_standing(items, probes)
        yield f"{cut}/user_recent.parquet", USER_RECENT, user_recent(judged)
        asked = known.filter(known[c.ROW_ID] >= first_row) if first_row else known
        rows = asked.select(list(FEATURE_ROWS.required))
        rows = item_features(items, asked, onto=user_features(users, asked, onto=rows))
        yield "rows.parquet", FEATURE_ROWS, _rows(inputs, rows)


def _with_attributes(table: ir.Table, attributes: ir.Table, columns: EntityColumns) -> ir.Table:
    own = attributes.select(columns.key, *columns.attributes).rename(attribute_key=columns.key)
    return table.left_join(own, [(columns.key, "attribute_key")]).drop("attribute_key")


def _snapshot(answers: ir.Table, attributes: ir.Table, columns: EntityColumns) -> ir.Table:
    """One row per entity, ordered by its id."""
    found = _with_attributes(answers, attributes, columns)
    return found.order_by(columns.key).select(columns.key, c.TIMESTAMP, **typed(found, columns))


def _rows(inputs: Inputs, answers: ir.Table) -> ir.Table:
    """One row per known interaction, in their order."""
    found = _with_attributes(answers, inputs.users, inputs.user_columns)
    found = _with_attributes(found, inputs.items, inputs.item_columns)
    return found.order_by(c.ROW_ID).select(
        *FEATURE_ROWS.required, **typed(found, inputs.user_columns), **typed(found, inputs.item_columns)
    )


def _write(engine: BaseBackend, path: Path, contract: Table, table: ir.Table) -> int:
    """Writes a table, reads it back and validates it; only then it gets its name. Returns its number of rows."""
    with atomic_path(path) as temporary:
        write_parquet(engine, table, temporary)
        schema = table.schema().to_pyarrow()
        scalars = {
            field.name: field.type
            for field in schema
            if not pa.types.is_list(field.type) and field.name not in contract.required
        }
        promised = Table(contract.name, {**contract.required, **scalars}, key=contract.key, allowed=contract.allowed)
        return promised.validate(read_table(temporary, list(promised.required))).num_rows


def _step(settings: Settings, arguments: argparse.Namespace) -> Mapping[str, Any]:
    return compute_features(settings)


def main(argv: list[str] | None = None) -> None:
    """The command line."""
    options = parser("Compute point-in-time features of every row, and the serving snapshots of users and items.")
    run_step("s2_term_trans", options, _step, argv)


if __name__ == "__main__":
    main()
