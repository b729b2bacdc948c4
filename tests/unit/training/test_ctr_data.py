"""A reader's rows become the same batches whether they are streamed, resumed or cached."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
import yaml

from data_exchange_center.encoder import ENCODED
from data_exchange_center.errors import DataError, SpecError
from data_exchange_center.feature_spec import FeatureSpec, load_spec
from offline.rank.feature_encoding import FittedEncoder
from offline.training.ctr_data import ITEM_IDS, POSITION, CachedRows, Columns, EncodedRows, fit_ctr_encoder
from offline.training.dataset import LikeBatch

SPEC = FeatureSpec.model_validate(
    yaml.safe_load("""
scene: clicks
features:
  - {name: i1, entity: candidate, type: numeric, transform: [log1p, standardize]}
  - {name: i1_bins, entity: candidate, type: numeric, derive: {op: value, inputs: [i1]}, transform: [{quantiles: 5}], embedding: 4}
  - {name: c1, entity: candidate, type: categorical, dtype: int64, default: -1,
     vocabulary: {policy: learned, min_frequency: 2, missing: true}, embedding: 8}
  - {name: c2, entity: candidate, type: categorical, dtype: int64, vocabulary: {policy: learned}, embedding: 4}
  - {name: c1_target, entity: candidate, type: numeric, derive: {op: target, inputs: [c1]}, transform: [standardize]}
""")
)
ROWS = 230


def table(rows: int = ROWS) -> pa.Table:
    random = np.random.default_rng(0)
    c1 = random.integers(0, 12, rows)
    label = random.random(rows) < 0.1 + 0.05 * c1
    return pa.table(
        {
            "label": pa.array(label.astype(np.float32)),
            "i1": pa.array(random.exponential(30, rows).astype(np.float32), mask=random.random(rows) < 0.2),
            "c1": pa.array(c1 * 10**12, mask=random.random(rows) < 0.1),
            "c2": pa.array(random.integers(0, 5, rows)),
        }
    )


class TableRows:
    """Batches of a table, with a position."""

    def __init__(self, rows: pa.Table, size: int = 64) -> None:
        self.batches, self.done = rows.combine_chunks().to_batches(max_chunksize=size), 0

    def __iter__(self) -> Iterator[pa.RecordBatch]:
        while self.done < len(self.batches):
            self.done += 1
            yield self.batches[self.done - 1]

    def state(self) -> dict[str, Any]:
        return {"done": self.done}

    def restore(self, state: Mapping[str, Any]) -> None:
        self.done = state["done"]


@pytest.fixture(scope="module")
def encoder() -> FittedEncoder:
    return fit_ctr_encoder(SPEC, lambda: TableRows(table()))


def joined(batches: list[LikeBatch]) -> tuple[torch.Tensor, ...]:
    return (
        torch.cat([batch.inputs[ITEM_IDS] for batch in batches]),
        torch.cat([batch.numbers.item for batch in batches]),
        torch.cat([batch.labels for batch in batches]),
    )


def same(one: tuple[torch.Tensor, ...], other: tuple[torch.Tensor, ...]) -> bool:
    """Equal; numbers to the last bits, as a logarithm differs by its place in a vector register."""
    ids, numbers, labels = zip(one, other, strict=True)
    close = numbers[0].shape == numbers[1].shape and torch.allclose(*numbers, atol=1e-6)
    return torch.equal(*ids) and close and torch.equal(*labels)


def test_a_batch_holds_what_the_graph_makes_of_each_feature(encoder: FittedEncoder) -> None:
    ids, numbers, labels = joined(list(EncodedRows(TableRows(table()), encoder)))
    frame = table().to_pandas()
    raw = {
        "i1": frame["i1"].to_numpy(np.float32),
        "c1": frame["c1"].fillna(-1).to_numpy(np.int64),
        "c2": frame["c2"].to_numpy(),
    }
    made = encoder.encode(raw)
    columns = Columns.of(SPEC)
    assert columns == Columns(("i1_bins", "c2", "c1"), ("i1", "c1_target"))  # ids of one size stand together
    assert ids.dtype == torch.int64 and numbers.dtype == labels.dtype == torch.float32
    for place, name in enumerate(columns.ids):
        assert ids[:, place].tolist() == made[ENCODED + name].tolist()
    for place, name in enumerate(columns.numbers):
        assert numbers[:, place].tolist() == made[ENCODED + name].tolist()
    assert labels.tolist() == frame["label"].tolist()


def test_the_size_of_batches_changes_nothing(encoder: FittedEncoder) -> None:
    whole = joined(list(EncodedRows(TableRows(table(), 1000), encoder, by_fold=True)))
    assert same(whole, joined(list(EncodedRows(TableRows(table(), 7), encoder, by_fold=True))))
    other = fit_ctr_encoder(SPEC, lambda: TableRows(table(), 9))
    assert other.vocabularies == encoder.vocabularies


def test_rows_of_the_fit_are_encoded_out_of_fold_wherever_they_come_from(encoder: FittedEncoder) -> None:
    ids, numbers, labels = joined(list(EncodedRows(TableRows(table()), encoder, by_fold=True)))
    plain = joined(list(EncodedRows(TableRows(table()), encoder)))
    assert torch.equal(ids, plain[0]) and not torch.equal(numbers, plain[1])
    order = np.random.default_rng(1).permutation(ROWS)
    shuffled = table().append_column(POSITION, pa.array(np.arange(ROWS))).take(order)
    made = joined(list(EncodedRows(TableRows(shuffled), encoder, by_fold=True)))
    assert same(made, (ids[order], numbers[order], labels[order]))


def test_a_stream_goes_on_from_its_position(encoder: FittedEncoder) -> None:
    whole = list(EncodedRows(TableRows(table()), encoder, by_fold=True))
    first = EncodedRows(TableRows(table()), encoder, by_fold=True)
    begun = list(islice(first, 2))
    second = EncodedRows(TableRows(table()), encoder, by_fold=True)
    second.restore(first.state())
    assert same(joined([*begun, *second]), joined(whole))
    with pytest.raises(DataError, match="not a position"):
        second.restore({"done": 2})


def test_cached_rows_are_the_streamed_ones_and_are_encoded_once(encoder: FittedEncoder, tmp_path: Path) -> None:
    streamed = joined(list(EncodedRows(TableRows(table()), encoder, by_fold=True)))
    EncodedRows(TableRows(table()), encoder, by_fold=True).cache(tmp_path / "train")
    cached = EncodedRows(TableRows(table(10)), encoder).cache(tmp_path / "train")  # it is there already
    assert len(cached) == ROWS and cached.ids.dtype == torch.int32
    assert same(joined([cached.batch(slice(0, ROWS))]), streamed)
    path = tmp_path / "train" / "numbers.npy"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(bytes(content))
    with pytest.raises(DataError, match=r"numbers\.npy"):
        CachedRows(tmp_path / "train")


def test_an_epoch_takes_each_row_once_in_an_order_of_its_own_and_can_be_resumed(
    encoder: FittedEncoder, tmp_path: Path
) -> None:
    cached = EncodedRows(TableRows(table()), encoder).cache(tmp_path / "rows")
    first, again, second = (joined(list(cached.epoch(50, seed=3, epoch=epoch))) for epoch in (1, 1, 2))
    assert same(first, again) and not same(first, second)
    assert sorted(map(tuple, first[1].tolist())) == sorted(map(tuple, cached.numbers.tolist()))
    begun = cached.epoch(50, seed=3, epoch=1)
    head = list(islice(begun, 2))
    rest = cached.epoch(30, seed=3, epoch=1)  # another batch size goes on at the same row
    rest.restore({"seed": 3, "epoch": 1, "rows": 100})
    assert same(joined([*head, *rest]), first)
    with pytest.raises(DataError, match="epoch 1"):
        cached.epoch(50, seed=3, epoch=2).restore(begun.state())


def test_rows_without_a_column_and_scenes_of_lists_are_named(encoder: FittedEncoder) -> None:
    with pytest.raises(DataError, match="no column for feature 'c2'"):
        list(EncodedRows(TableRows(table().drop_columns(["c2"])), encoder))
    with pytest.raises(SpecError, match="user_id"):
        Columns.of(load_spec("movielens"))


def test_rows_without_labels_are_encoded_too(encoder: FittedEncoder) -> None:
    (batch,) = EncodedRows(TableRows(table().drop_columns(["label"]), 500), encoder)
    assert batch.labels.isnan().all() and len(batch.labels) == ROWS


def test_dense_vectors_lie_behind_the_numbers_and_reach_the_network_whole(tmp_path: Path) -> None:
    vector = {
        "name": "words",
        "entity": "candidate",
        "type": "dense_vector",
        "length": 3,
        "transform": [{"clip": [-1, 1]}],
    }
    spec = FeatureSpec.model_validate(
        {"scene": "small", "features": [{"name": "i1", "entity": "candidate", "type": "numeric"}, vector]}
    )
    words = pa.array([[0.1, 0.2, 0.3], [5.0, -5.0, float("nan")]], pa.list_(pa.float32()))
    rows = pa.table(
        {"label": pa.array([0.0, 1.0], pa.float32()), "i1": pa.array([1.0, 2.0], pa.float32()), "words": words}
    )
    fitted = fit_ctr_encoder(spec, lambda: TableRows(rows))
    assert Columns.of(spec) == Columns((), ("i1",), (("words", 3),))
    for batches in (
        EncodedRows(TableRows(rows), fitted),
        EncodedRows(TableRows(rows), fitted).cache(tmp_path / "rows").epoch(2, 0, 0),
    ):
        (batch,) = batches
        order = batch.labels.argsort()
        expected = torch.tensor([[0.1, 0.2, 0.3], [1.0, -1.0, 0.0]])
        assert torch.allclose(batch.inputs[ENCODED + "words"][order], expected)
        assert batch.numbers.item[order].tolist() == [[1.0], [2.0]]
