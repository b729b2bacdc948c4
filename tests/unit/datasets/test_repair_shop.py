"""The repair-shop log: the same by seed and day, with a truth that the labels follow and changes on known days."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from sklearn.metrics import roc_auc_score

from data_exchange_center.errors import DataError, SettingsError
from data_exchange_center.workspace import read_table
from offline.datasets.repair_shop import FIRST_DAY, SCHEMA, RepairShopConfig, RepairShopLog, write_day
from offline.datasets.repair_texts import COMPLAINTS, KINDS, complaint_of, text_of

SMALL = RepairShopConfig(rows_per_day=400, history_rows=2000)


@pytest.fixture(scope="module")
def large() -> RepairShopLog:
    return RepairShopLog(RepairShopConfig(seed=3, rows_per_day=10_000, history_rows=10_000, poisoned_days=(5,)))


def labels(table: pa.Table) -> np.ndarray:
    return table["label"].to_numpy()


def test_a_day_is_the_same_whatever_was_made_before_it() -> None:
    first, second = RepairShopLog(SMALL), RepairShopLog(SMALL)
    in_order = [first.day(number) for number in (0, 1, 2)]
    backwards = [second.day(number) for number in (2, 1, 0)][::-1]
    assert in_order == backwards
    assert first.history() == second.history()


def test_another_seed_is_another_log() -> None:
    assert RepairShopLog(SMALL).day(0) != RepairShopLog(RepairShopConfig(seed=1, rows_per_day=400)).day(0)


def test_poisoning_changes_nothing_but_a_share_of_the_labels(large: RepairShopLog) -> None:
    clean = RepairShopLog(RepairShopConfig(seed=3, rows_per_day=10_000, history_rows=10_000)).day(5)
    poisoned = large.day(5)
    assert clean.drop_columns("label") == poisoned.drop_columns("label")
    assert np.mean(labels(clean) != labels(poisoned)) == pytest.approx(0.3, abs=0.02)
    assert large.facts(5).poisoned and not large.facts(4).poisoned


def test_brands_and_shops_appear_on_their_day() -> None:
    log = RepairShopLog(RepairShopConfig(rows_per_day=3000, new_brands=(2, 4), new_shops=(3,)))
    brands, shops = log.facts(2).new_brands + log.facts(4).new_brands, log.facts(3).new_shops
    seen = [
        (
            set(brands) & set(log.day(number)["car_brand"].to_pylist()),
            set(shops) & set(log.day(number)["shop_id"].to_pylist()),
        )
        for number in range(5)
    ]
    assert seen == [
        (set(), set()),
        (set(), set()),
        ({brands[0]}, set()),
        ({brands[0]}, set(shops)),
        (set(brands), set(shops)),
    ]


def test_adding_a_later_brand_leaves_the_days_before_it_as_they_are() -> None:
    few = RepairShopLog(RepairShopConfig(rows_per_day=400, new_brands=(5,)))
    more = RepairShopLog(RepairShopConfig(rows_per_day=400, new_brands=(5, 9)))
    assert few.day(7) == more.day(7)


def test_labels_follow_the_truth(large: RepairShopLog) -> None:
    table = pa.concat_tables([large.day(number) for number in (0, 20, 39)])
    truth, given = large.truth(table), labels(table)
    for low in np.arange(0, 1, 0.1):
        inside = (truth >= low) & (truth < low + 0.1)
        if inside.sum() > 300:
            assert given[inside].mean() == pytest.approx(truth[inside].mean(), abs=4 * 0.5 / np.sqrt(inside.sum()))
    assert 0.27 < labels(large.history()).mean() < 0.33
    assert 0.80 < roc_auc_score(given, truth) < 0.87


def test_what_was_true_at_first_is_less_true_later(large: RepairShopLog) -> None:
    last = large.day(39)
    midnight = large.day(0)["timestamp"][0].as_py()
    as_before = last.set_column(
        SCHEMA.get_field_index("timestamp"), "timestamp", pa.repeat(pa.scalar(midnight), len(last))
    )
    fresh, stale = (roc_auc_score(labels(last), large.truth(table)) for table in (last, as_before))
    assert fresh - stale > 0.02


def test_the_truth_of_a_row_does_not_depend_on_its_table(large: RepairShopLog) -> None:
    table = large.day(11)
    order = np.random.default_rng(0).permutation(len(table))
    np.testing.assert_array_equal(large.truth(table)[order], large.truth(table.take(pa.array(order))))


def test_history_lies_before_day_0_in_order() -> None:
    log = RepairShopLog(SMALL)
    moments = log.history()["timestamp"].to_numpy()
    assert (np.diff(moments) >= 0).all()
    assert moments.max() < log.day(0)["timestamp"].to_numpy().min()
    assert pc.count_distinct(pa.concat_tables([log.history(), log.day(0)])["event_id"]).as_py() == 2400


def test_a_written_day_is_that_day(tmp_path: Path) -> None:
    log = RepairShopLog(SMALL)
    path = write_day(log, 1, tmp_path)
    assert path == tmp_path / "days" / "2026-01-02" / "rows.parquet" and FIRST_DAY.isoformat() == "2026-01-01"
    assert read_table(path).equals(log.day(1))


def test_every_complaint_is_read_from_its_text() -> None:
    for number, kind in enumerate(KINDS):
        for language in range(len(COMPLAINTS[kind])):
            for specialty in range(len(KINDS)):
                assert complaint_of(text_of("宝马", number, specialty, language)) == number


@pytest.mark.parametrize(
    ("name", "value"),
    [("rows_per_day", 0), ("rows_per_day", 10**9), ("days", 0), ("flipped", 1.5), ("new_brands", (-1,))],
)
def test_settings_out_of_range_are_named(name: str, value: object) -> None:
    with pytest.raises(SettingsError, match=name):
        RepairShopConfig(**{name: value})  # type: ignore[arg-type]


def test_a_day_that_there_is_not_is_an_error() -> None:
    with pytest.raises(DataError, match="no day 40"):
        RepairShopLog(SMALL).day(40)
