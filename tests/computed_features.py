"""User features of a tiny release as the offline expressions compute them, and what later events are judged against."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import ibis
import pyarrow as pa
import pyarrow.compute as pc

from data_exchange_center import columns as c
from data_exchange_center.axes import axes_of, term_length
from data_exchange_center.feature_spec import FeatureSpec
from data_exchange_center.workspace import read_table, write_table
from offline.preprocess.engine import connect, register
from offline.preprocess.expressions import (
    USER_FEATURES,
    item_timeline,
    judged_events,
    user_features,
    user_timeline,
)
from offline.preprocess.feature_columns import entity_columns, typed
from offline.preprocess.standings import item_standing, user_recent
from offline.release.s1_pack_release import with_recent

_NUMBERS = (
    "user_events",
    "user_positives",
    "user_value_square_sum",
    "user_residual_sum",
    "user_popularity_sum",
    "user_values_last5",
    "user_residual_last20",
    "user_value_residual_last20",
    "user_session_events",
    "user_positives_7d",
    "user_global_rate",
)
COMPUTED: tuple[dict[str, Any], ...] = (
    *({"name": name, "entity": "user", "type": "numeric"} for name in _NUMBERS),
    {"name": "user_term_residual", "entity": "user", "type": "dense_vector", "length": 10},
    {"name": "user_decade_events", "entity": "user", "type": "dense_vector", "length": 9},
)


def write_computed(folder: Path, spec: FeatureSpec, history_length: int) -> None:
    """Completes the tables of a release folder: computed user features, item_standing, and profiles with recent events."""
    profiles, items = read_table(folder / "user_profiles.parquet"), read_table(folder / "items.parquet")
    engine = connect("duckdb")
    log = register(engine, "log", _log(profiles, items))
    catalog = register(engine, "items", items)
    judged = engine.create_table("judged", judged_events(log))
    axes, busiest = axes_of(items, term_length(spec)), log.count().execute()
    known = [feature for feature in spec.user_features if feature.name in USER_FEATURES]
    columns = entity_columns(c.USER_ID, known, USER_FEATURES, ())
    timeline = user_timeline(
        judged, catalog, axes=axes, history_length=history_length, busiest=busiest, wanted=columns.computed
    )
    probes = judged.group_by(c.USER_ID).aggregate(timestamp=judged.timestamp.max() + 1)
    answers = user_features(timeline, probes)
    made = answers.select(c.USER_ID, **typed(answers, columns)).to_pyarrow()
    stored = read_table(folder / "user_features.parquet")
    made = made.take(pc.index_in(stored[c.USER_ID], value_set=made[c.USER_ID].combine_chunks()))
    together = stored.drop_columns([name for name in columns.names if name in stored.column_names])
    for name in columns.names:
        together = together.append_column(name, made[name])
    write_table(folder / "user_features.parquet", together.combine_chunks())
    moment = ibis.literal(int(judged.timestamp.max().execute()) + 1, "int64")
    item_probes = catalog.select(c.ITEM_ID, timestamp=moment)
    standing = item_standing(item_timeline(judged, catalog, axes=axes, busiest=busiest, wanted=()), item_probes)
    write_table(folder / "item_standing.parquet", standing.to_pyarrow())
    write_table(folder / "user_profiles.parquet", with_recent(profiles, user_recent(judged).to_pyarrow()))


def _log(profiles: pa.Table, items: pa.Table) -> pa.Table:
    ids = items[c.ITEM_ID].to_pylist()
    rows = [
        {c.USER_ID: row[c.USER_ID], c.ITEM_ID: ids[item], c.TIMESTAMP: at, c.LABEL: label, c.RATING: value}
        for row in profiles.to_pylist()
        for item, at, label, value in zip(
            *(row[f"history{name}"] for name in ("", "_timestamps", "_labels", "_values")), strict=True
        )
    ]
    kinds = (profiles.schema.field(c.USER_ID).type, items.schema.field(c.ITEM_ID).type)
    schema = [(c.USER_ID, kinds[0]), (c.ITEM_ID, kinds[1]), (c.TIMESTAMP, pa.int64())]
    return pa.Table.from_pylist(rows, pa.schema([*schema, (c.LABEL, pa.int8()), (c.RATING, pa.float32())]))
