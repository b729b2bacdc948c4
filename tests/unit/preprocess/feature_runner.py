"""Runs the feature expressions on small logs: the SQL is compiled once, only the tables' content changes."""

from __future__ import annotations

import math
from typing import Any

import pyarrow as pa

from data_exchange_center.axes import axes_of
from offline.preprocess.engine import connect, register
from offline.preprocess.expressions import (
    ITEM_FEATURES,
    USER_FEATURES,
    item_features,
    item_timeline,
    judged_events,
    user_features,
    user_timeline,
)
from offline.preprocess.standings import item_standing, user_recent
from tests.unit.preprocess.slow_reference import Catalog, Event

HISTORY = 4  # short, so that random logs reach the cut
TERM_LENGTH = 5

Rows = dict[tuple[Any, int], dict[str, Any]]


class FeatureRunner:
    """Features of probes on changing logs over one catalog."""

    def __init__(self, items: pa.Table, id_type: pa.DataType, busiest: int = 64) -> None:
        self.axes = axes_of(items, TERM_LENGTH)
        names = items.column_names
        self.catalog = Catalog(
            {row["item_id"]: row["genres"] if "genres" in names else [] for row in items.to_pylist()},
            {row["item_id"]: row["year"] if "year" in names else 0 for row in items.to_pylist()},
            list(self.axes.terms),
            TERM_LENGTH,
        )
        ids = {"user_id": id_type, "item_id": id_type}
        time = {"timestamp": pa.int64()}
        schemas = {
            "interactions": {**ids, **time, "label": pa.int8(), "rating": pa.float32()},
            "user_probes": {"user_id": id_type, **time},
            "item_probes": {"item_id": id_type, **time},
        }
        engine = connect("duckdb")
        tables = {name: register(engine, name, pa.schema(schema).empty_table()) for name, schema in schemas.items()}
        catalog = register(engine, "items", items)
        judged = judged_events(tables["interactions"])
        known = engine.create_table("judged", judged)
        common = {"axes": self.axes, "busiest": busiest}
        of_users = user_features(
            user_timeline(known, catalog, history_length=HISTORY, wanted=USER_FEATURES, **common), tables["user_probes"]
        )
        of_items = item_features(item_timeline(known, catalog, wanted=ITEM_FEATURES, **common), tables["item_probes"])
        timeline = item_timeline(known, catalog, wanted=ITEM_FEATURES, **common)
        asked = (
            ("users", of_users),
            ("items", of_items),
            ("standing", item_standing(timeline, tables["item_probes"])),
            ("recent", user_recent(known)),
        )
        self._database = engine.con
        for name, expression in asked:
            self._database.execute(f"PREPARE answer_{name} AS {engine.compile(expression)}")
        self._database.execute(f"PREPARE judge AS INSERT INTO judged {engine.compile(judged)}")

    def __call__(
        self, events: list[Event], user_probes: list[tuple[Any, int]], item_probes: list[tuple[Any, int]]
    ) -> tuple[Rows, Rows]:
        """Features by (id, timestamp) of the user probes and of the item probes."""
        self._fill("interactions", [(e.user, e.item, e.timestamp, e.label, e.rating) for e in events])
        self._fill("user_probes", user_probes)
        self._fill("item_probes", item_probes)
        self._database.execute("DELETE FROM judged")
        self._database.execute("EXECUTE judge")
        return self._answer("users", "user_id"), self._answer("items", "item_id")

    def after(
        self, events: list[Event], later: list[dict[str, Any]], probes: list[tuple[Any, int]]
    ) -> tuple[Rows, Rows]:
        """User features by (id, timestamp) of probes, without and with judged events that follow the log's.

        Args:
            later: rows of the judged table, see `judged_events`.
        """
        before, _ = self(events, probes, [])
        for row in later:
            names = ", ".join(row)
            values = ", ".join("?" * len(row))
            self._database.execute(f"INSERT INTO judged ({names}) VALUES ({values})", list(row.values()))  # noqa: S608
        return before, self._answer("users", "user_id")

    def standing(self, events: list[Event], probes: list[tuple[Any, int]]) -> tuple[pa.Table, pa.Table]:
        """Tables of `item_standing` and `user_recent` for a log."""
        self(events, [], probes)
        standing, recent = (
            pa.Table.from_pandas(self._database.execute(f"EXECUTE answer_{name}").df())
            for name in ("standing", "recent")
        )
        return standing, recent

    def _fill(self, name: str, rows: list[tuple[Any, ...]]) -> None:
        self._database.execute(f"DELETE FROM {name}")  # noqa: S608
        if rows:
            places = ", ".join("?" * len(rows[0]))
            self._database.executemany(f"INSERT INTO {name} VALUES ({places})", rows)  # noqa: S608

    def _answer(self, name: str, key: str) -> Rows:
        rows = self._database.execute(f"EXECUTE answer_{name}").fetchall()
        names = [column[0] for column in self._database.description]
        answers = {}
        for values in rows:
            row = dict(zip(names, values, strict=True))
            answers[row.pop(key), row.pop("timestamp")] = row
        assert len(answers) == len(rows), "a probe was answered twice"
        return answers


def differences(found: dict[str, Any], expected: dict[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Features that differ by more than float32 can say, with both values."""

    def same(a: Any, b: Any) -> bool:
        if isinstance(b, list):
            return len(a) == len(b) and all(same(x, y) for x, y in zip(a, b, strict=True))
        return a == b if isinstance(b, str) else math.isclose(a, b, rel_tol=2e-7, abs_tol=1e-9)

    assert found.keys() == expected.keys()
    return {name: (found[name], expected[name]) for name in found if not same(found[name], expected[name])}
