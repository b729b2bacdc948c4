"""The same expressions on Spark give what they give on DuckDB. Needs pyspark and a JVM, which Marquee does not install."""

from __future__ import annotations

import random
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import ibis
import pyarrow as pa
import pytest

from data_exchange_center.axes import axes_of
from data_exchange_center.tables import STRINGS
from offline.preprocess.expressions import (
    ITEM_FEATURES,
    USER_FEATURES,
    item_features,
    item_timeline,
    judged_events,
    user_features,
    user_timeline,
)
from tests.unit.preprocess.feature_runner import HISTORY, TERM_LENGTH, FeatureRunner, differences
from tests.unit.preprocess.slow_reference import Event

DAY = 86_400
ITEMS = pa.table(
    {
        "item_id": [1, 2, 3, 4],
        "genres": pa.array([["Drama"], [], ["War", "Drama"], ["Comedy", "War"]], STRINGS),
        "year": [1994, 0, 1915, 2031],
    }
)


@pytest.fixture(scope="module")
def spark(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A local Spark session."""
    pyspark = pytest.importorskip(
        "pyspark.sql", reason="pyspark is not installed: pip install 'ibis-framework[pyspark]'"
    )
    if not shutil.which("java"):
        pytest.skip("there is no java on the PATH")
    warehouse: Path = tmp_path_factory.mktemp("warehouse")
    builder = pyspark.SparkSession.builder.master("local[1]").config("spark.ui.enabled", "false")
    builder = builder.config("spark.sql.shuffle.partitions", "2").config("spark.sql.warehouse.dir", str(warehouse))
    session = builder.getOrCreate()
    yield session
    session.stop()


def test_spark_gives_the_same_features(spark: Any) -> None:
    chance = random.Random(3)
    events = []
    for user in (1, 2, 3):
        now = 880_000_000
        while sum(event.user == user for event in events) < 30:
            now += chance.choice([0, 1, 1800, 1801, 3600, DAY, 7 * DAY + 1, 30 * DAY])
            events += [
                Event(user, chance.randint(1, 4), now, chance.randint(0, 1), chance.choice([None, 1.0, 3.5, 5.0]))
                for _ in range(chance.randint(1, 8))
            ]
    user_probes = [(event.user, event.timestamp) for event in events] + [(9, 890_000_000)]
    item_probes = [(event.item, event.timestamp) for event in events] + [(2, 990_000_000)]
    expected = FeatureRunner(ITEMS, pa.int64(), busiest=256)(events, user_probes, item_probes)

    engine = ibis.pyspark.connect(spark)

    def view(name: str, rows: list[tuple[Any, ...]], schema: str) -> Any:
        spark.createDataFrame(rows, schema).createOrReplaceTempView(name)
        return engine.table(name)

    key = "user_id long, item_id long, timestamp long"
    rows = [(e.user, e.item, e.timestamp, e.label, e.rating) for e in events]
    known = judged_events(view("events", rows, f"{key}, label byte, rating float"))
    spark.sql(engine.compile(known)).cache().createOrReplaceTempView("judged")
    judged = engine.table("judged")
    items = view(
        "items", [tuple(row.values()) for row in ITEMS.to_pylist()], "item_id long, genres array<string>, year long"
    )
    common: dict[str, Any] = {"axes": axes_of(ITEMS, TERM_LENGTH), "busiest": 256}
    users = user_timeline(judged, items, history_length=HISTORY, wanted=USER_FEATURES, **common)
    of_users = user_features(users, view("user_probes", user_probes, "user_id long, timestamp long"))
    of_items = item_features(
        item_timeline(judged, items, wanted=ITEM_FEATURES, **common),
        view("item_probes", item_probes, "item_id long, timestamp long"),
    )
    for answers, id_column, rows_expected in ((of_users, "user_id", expected[0]), (of_items, "item_id", expected[1])):
        found = [row.asDict(recursive=True) for row in spark.sql(engine.compile(answers)).collect()]
        assert len(found) == len(rows_expected)
        for row in found:
            probe = (row.pop(id_column), row.pop("timestamp"))
            assert not differences(row, rows_expected[probe]), probe
