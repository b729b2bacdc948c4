"""The row reader: every row exactly once, in a known order, from any position, whatever the format."""

from __future__ import annotations

import gzip
import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from data_exchange_center.errors import DataError, DataUnavailable, SettingsError
from data_exchange_center.rows.schema import RowSchema
from offline.reading import files
from offline.reading.reader import RowReader, RowSource, source_at
from tests.unit.rows.written import FORMATS, SCHEMA, Row, numbered, rows, table, tsv, write

ROWS = numbered(500)


@pytest.fixture(scope="module", autouse=True)
def small_pieces() -> Any:
    """Stretches of text so short that a small file has many."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(files, "STRETCH", 12_000)
        yield


@pytest.fixture(scope="module", params=FORMATS)
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`ROWS` in three files of unequal size and an empty one."""
    made = tmp_path_factory.mktemp(request.param)
    bounds = (0, 210, 211, 211, 500)
    for number, (start, stop) in enumerate(itertools.pairwise(bounds)):
        write(made / f"part-{number}", ROWS[start:stop], request.param)
    (made / "_SUCCESS").touch()
    return made


def reader(folder: Path, **more: Any) -> RowReader:
    return RowReader(folder, SCHEMA, **{"batch_size": 32, **more})


def numbers(batches: Any) -> list[int]:
    """The rows' numbers, in the order read."""
    return [number for batch in batches for number in batch["c1"].to_pylist()]


def test_every_row_comes_back_as_it_was_written(folder: Path) -> None:
    batches = list(reader(folder))
    assert pa.Table.from_batches(batches).equals(table(ROWS))
    assert [len(batch) for batch in batches] == [32] * 15 + [20]


def test_the_remainder_can_be_dropped(folder: Path) -> None:
    assert [len(batch) for batch in reader(folder, drop_remainder=True)] == [32] * 15
    assert len(list(reader(folder, drop_remainder=True, shuffle_rows=77))) == 15


@pytest.mark.parametrize("shuffle_rows", [0, 90])
@pytest.mark.parametrize("world_size", [2, 3, 7])
def test_ranks_share_the_rows_evenly(folder: Path, world_size: int, shuffle_rows: int) -> None:
    ranks = [reader(folder, rank=rank, world_size=world_size, shuffle_rows=shuffle_rows) for rank in range(world_size)]
    read = [numbers(rank) for rank in ranks]
    assert sorted(itertools.chain(*read)) == list(range(500))
    assert max(map(len, read)) - min(map(len, read)) <= 1
    assert [len(one) for one in read] == [rank.rows for rank in ranks]


def test_ranks_that_drop_the_remainder_have_equally_many_batches(folder: Path) -> None:
    counts = {
        sum(1 for _ in reader(folder, rank=rank, world_size=3, batch_size=83, drop_remainder=True)) for rank in range(3)
    }
    assert counts == {2}


def test_the_order_is_that_of_seed_and_epoch_alone(folder: Path) -> None:
    def order(**more: Any) -> list[int]:
        return numbers(reader(folder, shuffle_rows=120, **more))

    first = order(seed=1, epoch=1, workers=0)
    assert sorted(first) == list(range(500)) != first
    assert order(seed=1, epoch=1, workers=1, prefetch=0) == order(seed=1, epoch=1, workers=4, batch_size=7) == first
    assert order(seed=2, epoch=1) != first != order(seed=1, epoch=2)


@pytest.mark.parametrize("shuffle_rows", [0, 45, 10_000])
def test_reading_goes_on_where_it_stopped(folder: Path, shuffle_rows: int) -> None:
    expected = numbers(reader(folder, shuffle_rows=shuffle_rows, epoch=3))
    for taken in (0, 1, 6, 15, 16):
        stopped = reader(folder, shuffle_rows=shuffle_rows, epoch=3)
        running = iter(stopped)
        before = numbers(itertools.islice(running, taken))
        state = json.loads(json.dumps(stopped.state()))
        running.close()  # type: ignore[attr-defined]
        going_on = reader(folder, shuffle_rows=shuffle_rows, batch_size=19)
        going_on.restore(state)
        assert going_on.epoch == 3
        assert before + numbers(going_on) == expected, taken


def test_a_state_of_a_state_holds_too(folder: Path) -> None:
    expected = numbers(reader(folder, shuffle_rows=60, rank=1, world_size=2))
    read: list[int] = []
    state: dict[str, Any] | None = None
    for _ in range(20):
        one = reader(folder, shuffle_rows=60, rank=1, world_size=2)
        if state is not None:
            one.restore(state)
        read += numbers(itertools.islice(one, 1))
        state = one.state()
    assert read == expected


def test_an_iteration_that_was_not_restored_begins_anew(folder: Path) -> None:
    again = reader(folder)
    assert numbers(itertools.islice(again, 2)) == list(range(64))
    assert numbers(again) == numbers(again) == list(range(500))


def test_columns_can_be_chosen(folder: Path) -> None:
    batch = next(iter(reader(folder, columns=["c5", "i2"])))
    assert batch.schema.names == ["label", "i2", "c5"]
    assert batch.equals(table(ROWS[:32]).select(["label", "i2", "c5"]).combine_chunks().to_batches()[0])


@given(
    made=rows(), form=st.sampled_from(FORMATS), batch_size=st.integers(1, 50), world=st.integers(1, 5), data=st.data()
)
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
def test_any_rows_are_read_back_by_any_ranks_from_any_position(
    tmp_path_factory: pytest.TempPathFactory,
    made: list[Row],
    form: str,
    batch_size: int,
    world: int,
    data: st.DataObject,
) -> None:
    folder = tmp_path_factory.mktemp("any")
    cut = data.draw(st.integers(0, len(made)))
    write(folder / "a", made[:cut], form)
    write(folder / "b", made[cut:], form)
    shuffle_rows = data.draw(st.sampled_from([0, 5]))
    read: list[pa.RecordBatch] = []
    for rank in range(world):

        def again(rank: int = rank) -> RowReader:
            return reader(
                folder, batch_size=batch_size, rank=rank, world_size=world, shuffle_rows=shuffle_rows, workers=1
            )

        stopped = again()
        running = iter(stopped)
        read += itertools.islice(running, data.draw(st.integers(0, 5)))
        going_on = again()
        going_on.restore(stopped.state())
        read += going_on
    found = pa.Table.from_batches(read, SCHEMA.arrow)
    if shuffle_rows:
        assert sorted(map(repr, found.to_pylist())) == sorted(map(repr, table(made).to_pylist()))
    else:
        assert found.equals(table(made))


def test_unlabelled_files_give_batches_without_label(tmp_path: Path) -> None:
    for form in FORMATS:
        path = write(tmp_path / form, ROWS[:20], form, labelled=False)
        unlabelled = RowReader(path, SCHEMA, batch_size=20)
        assert unlabelled.schema == SCHEMA.unlabelled
        assert next(iter(unlabelled)).equals(table(ROWS[:20]).drop_columns(["label"]).to_batches()[0])


def test_files_with_and_without_labels_do_not_mix(tmp_path: Path) -> None:
    write(tmp_path / "a", ROWS[:5], "tsv")
    write(tmp_path / "b", ROWS[:5], "slot", labelled=False)
    with pytest.raises(DataError, match="b: its rows have no label, those of .*a have one"):
        RowReader(tmp_path, SCHEMA, batch_size=2)


def test_formats_may_mix(tmp_path: Path) -> None:
    for number, form in enumerate(FORMATS):
        write(tmp_path / f"{number}", ROWS[number * 10 : number * 10 + 10], form)
    assert numbers(reader(tmp_path)) == list(range(10 * len(FORMATS)))


def test_a_state_of_other_rows_is_refused(folder: Path, tmp_path: Path) -> None:
    state = reader(folder, seed=1).state()
    with pytest.raises(DataError, match="seed was 1, is 2"):
        reader(folder, seed=2).restore(state)
    write(tmp_path / "part-0", ROWS[:5], "tsv")
    with pytest.raises(DataError, match="files was"):
        reader(tmp_path, seed=1).restore(state)
    for broken in ({}, {**state, "version": 0}, {**state, "position": {"row": -1}}, {**state, "position": None}):
        with pytest.raises(DataError, match="the reader's state"):
            reader(folder, seed=1).restore(broken)


def test_a_malformed_row_is_named_by_file_and_line_in_any_piece(tmp_path: Path) -> None:
    lines = tsv(ROWS).splitlines(keepends=True)
    for number in (0, 1, 77, 499):
        path = tmp_path / f"{number}.tsv"
        path.write_bytes(b"".join([*lines[:number], b"1\t2\n", *lines[number + 1 :]]))
        with pytest.raises(DataError, match=rf"{number}.tsv: line {number + 1}: 2 tab-separated fields, 40 are exp"):
            list(reader(path))


@pytest.mark.parametrize("form", ["tsv", "tsv.gz"])
def test_malformed_rows_are_skipped_and_counted_when_asked(tmp_path: Path, form: str) -> None:
    wrong = {0, 76, 77, 300, 499}
    path = write(tmp_path / "mixed", [], form)
    good = tsv(ROWS).splitlines(keepends=True)
    text = b"".join(b"\t" * 39 + b"zz\n" if number in wrong else line for number, line in enumerate(good))
    path.write_bytes(gzip.compress(text) if form.endswith("gz") else text)
    skipping = reader(path, on_error="skip")
    running = iter(skipping)
    before = numbers(itertools.islice(running, 7))
    state = skipping.state()
    after = numbers(running)
    assert before + after == [number for number in range(500) if number not in wrong]
    assert skipping.skipped == len(wrong)
    assert [fault.line for fault in skipping.faults.first] == [number + 1 for number in sorted(wrong)]
    going_on = reader(path, on_error="skip")
    going_on.restore(state)
    assert numbers(going_on) == after
    assert going_on.skipped == len(wrong)


def test_a_wrong_row_of_a_columnar_file_is_named_by_its_number(tmp_path: Path) -> None:
    made = [*ROWS[:40], {**ROWS[40], "label": 2.0}, *ROWS[41:60]]
    for form in ("parquet", "orc"):
        path = write(tmp_path / form, made, form)
        with pytest.raises(DataError, match=f"{form}: row 40: 'label' is 2.0, not 0 or 1"):
            list(reader(path))
        skipping = reader(path, on_error="skip")
        assert numbers(skipping) == [number for number in range(60) if number != 40]
        assert skipping.skipped == 1


def test_what_is_no_file_of_rows_is_an_error_that_says_so(tmp_path: Path) -> None:
    with pytest.raises(DataUnavailable, match="nowhere: no such file or folder"):
        reader(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="is an empty folder"):
        reader(tmp_path / "empty")
    for form in ("tsv.gz", "parquet", "orc"):
        path = write(tmp_path / form, ROWS, form)
        path.write_bytes(path.read_bytes()[:-100])
        with pytest.raises(DataError, match=f"{form}: (cannot be read|not a whole)"):
            list(reader(path))


def test_empty_files_hold_no_rows(tmp_path: Path) -> None:
    (tmp_path / "a.tsv").touch()
    assert list(reader(tmp_path)) == []
    assert reader(tmp_path).rows == 0


def test_arguments_out_of_range_are_refused(folder: Path) -> None:
    for wrong in ({"batch_size": 0}, {"rank": 2, "world_size": 2}, {"workers": -1}, {"on_error": "ignore"}):
        with pytest.raises(SettingsError, match=next(iter(wrong))):
            reader(folder, **wrong)  # type: ignore[arg-type]


class OwnReader:
    """A row source of one's own: four batches of zeros."""

    def __init__(self, paths: object, schema: RowSchema, *, batch_size: int, **unused: object) -> None:
        self.schema, self.epoch, self.skipped = schema, 0, 0
        self._left, self._size = 4, batch_size

    def __iter__(self) -> Any:
        while self._left:
            self._left -= 1
            yield pa.record_batch(
                [pa.array(np.zeros(self._size)).cast(one.arrow) for one in self.schema.columns], self.schema.names
            )

    def state(self) -> dict[str, Any]:
        return {"left": self._left}

    def restore(self, state: Any) -> None:
        self._left = state["left"]


def test_a_reader_of_ones_own_is_found_by_its_import_path() -> None:
    made = source_at("tests.unit.rows.test_reader:OwnReader")("anywhere", SCHEMA, batch_size=3)
    assert isinstance(made, RowSource)
    assert [len(batch) for batch in made] == [3] * 4
    for wrong in ("tests.unit.rows.test_reader", "no.such.module:x", "tests.unit.rows.test_reader:ROWS", ":"):
        with pytest.raises(SettingsError, match="expected package.module:function"):
            source_at(wrong)
