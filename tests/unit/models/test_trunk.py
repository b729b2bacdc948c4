"""The trunk: shared tables, pooled lists, matrices instead of single values, scenes without a user's side."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from data_exchange_center.encoded_matrices import matrices
from data_exchange_center.encoder import ENCODED, RAW, raw_inputs
from data_exchange_center.feature_spec import FeatureSpec
from offline.models.ranker import Ranker, config_for
from offline.models.trunk import Reads, Trunk
from offline.rank.feature_encoding import FittedEncoder
from tests.unit.models.test_deepfm import encoded
from tests.unit.models.tiny_scene import clicks_encoder, tiny_config, tiny_encoder, tiny_ranker, tiny_spec


def in_matrices(encoder: FittedEncoder, inputs: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The same inputs with every scalar in its matrix."""
    made = dict(inputs)
    for matrix in matrices(encoder.spec, [feature.name for feature in raw_inputs(encoder.spec)]):
        prefix = RAW if matrix.kind in ("floats", "moments") else ENCODED
        made[matrix.name] = torch.stack([made.pop(prefix + name) for name in matrix.features], -1)
    return made


def test_matrices_give_what_single_values_give() -> None:
    encoder = tiny_encoder()
    torch.manual_seed(0)
    ranker, inputs = tiny_ranker(encoder), encoded(encoder, 6)
    for one, other in zip(ranker(inputs), ranker(in_matrices(encoder, inputs)), strict=True):
        assert torch.equal(one, other)


def test_every_vocabulary_has_its_own_rows_and_padding_has_none() -> None:
    encoder = clicks_encoder(numbers=False)
    trunk = Trunk(encoder.spec, encoder.rows)
    rows = trunk.tables.rows(torch.tensor([[1, 1, 1], [4, 4, 3], [0, 0, 0]]), ["c1", "c2", "i1"])
    assert len(set(rows[:2].flatten().tolist())) == 6 and rows[2].tolist() == [0, 0, 0]
    first, _ = trunk.tables.look_up(4, rows[1])
    assert torch.equal(first[1], trunk.tables.of("c2")[4 - 1, :4])
    assert not trunk.tables.look_up(4, rows[2])[0].any()


def test_padding_stays_zero_and_only_looked_up_rows_learn() -> None:
    encoder = clicks_encoder(numbers=False)
    trunk = Trunk(encoder.spec, encoder.rows)
    inputs = {
        "encoded.c1": torch.tensor([2, 0]),
        "encoded.c2": torch.tensor([3, 3]),
        "encoded.i1": torch.tensor([0, 0]),
    }
    made = trunk.assemble(inputs, trunk.numbers(inputs)["like"])
    (made.item_fields.blocks[0].sum() + made.first_order[1].sum()).backward()
    (table,) = trunk.tables.parameters()
    assert table.grad is not None
    learned = table.grad.abs().sum(1).nonzero().flatten().tolist()
    expected = [
        *trunk.tables.rows(torch.tensor([2]), ["c1"]).tolist(),
        *trunk.tables.rows(torch.tensor([3]), ["c2"]).tolist(),
    ]
    assert learned == sorted(expected)


def test_lists_share_the_rows_of_what_they_hold_and_ignore_padding() -> None:
    encoder = tiny_encoder()
    trunk, inputs = Trunk(encoder.spec, encoder.rows), encoded(encoder, 2)
    inputs["encoded.history"] = torch.tensor([[3, 4, 0, 0]])
    inputs["raw.history_labels"] = torch.tensor([[1.0, 0.0, 0.0, 0.0]])
    inputs["encoded.genres"] = torch.tensor([[2, 3, 0], [0, 0, 0]])
    made = trunk.assemble(inputs, trunk.numbers(inputs)["like"])
    items, genres = trunk.tables.of("item_id")[:, :4], trunk.tables.of("genres")[:, :3]
    history = next(block for block in made.user_fields.blocks if block.shape[-1] == 4)[0]
    assert torch.allclose(history, torch.stack((items[2] + items[3], items[2])) / 3**0.5, atol=1e-6)
    pooled = next(block for block in made.item_fields.blocks if block.shape[-1] == 3)[:, 0]
    assert torch.allclose(pooled, torch.stack(((genres[1] + genres[2]) / 2, torch.zeros(3))), atol=1e-6)


def test_a_list_is_the_sum_of_what_it_holds_where_its_combiner_says_so() -> None:
    encoder = tiny_encoder()
    tree = encoder.spec.model_dump()
    next(feature for feature in tree["features"] if feature["name"] == "genres")["combiner"] = "sum"
    trunk, inputs = Trunk(FeatureSpec.model_validate(tree), encoder.rows), encoded(encoder, 2)
    inputs["encoded.genres"] = torch.tensor([[2, 3, 0], [0, 0, 0]])
    with torch.no_grad():
        trunk.tables.of("genres")[:, 3] = torch.tensor([5.0, 7.0, 9.0, 11.0])
    made = trunk.assemble(inputs, trunk.numbers(inputs)["like"])
    genres = trunk.tables.of("genres")[:, :3]
    pooled = next(block for block in made.item_fields.blocks if block.shape[-1] == 3)[:, 0]
    assert torch.allclose(pooled, torch.stack((genres[1] + genres[2], torch.zeros(3))), atol=1e-6)
    assert torch.equal(made.first_order[1], torch.tensor([16.0, 0.0]))


@pytest.mark.parametrize("kind", ["categorical", "sequence"])
def test_only_a_set_has_a_combiner(kind: str) -> None:
    feature = {"name": "c1", "entity": "item", "type": kind, "dtype": "int64", "vocabulary": {}, "embedding": 4}
    with pytest.raises(ValueError, match="multi_categorical"):
        FeatureSpec.model_validate({"scene": "s", "features": [feature | {"combiner": "sum"}]})


def test_the_sizes_are_those_of_what_is_assembled() -> None:
    encoder = tiny_encoder()
    trunk, inputs = Trunk(encoder.spec, encoder.rows), encoded(encoder, 5)
    for head in ("like", "choose"):
        shape, made = trunk.shape(head), trunk.assemble(inputs, trunk.numbers(inputs)[head])
        for sizes, fields in ((shape.user_fields, made.user_fields), (shape.item_fields, made.item_fields)):
            assert sizes == tuple(block.shape[-1] for block in fields.blocks for _ in range(block.shape[-2]))
        assert (shape.user_numbers, shape.item_numbers) == tuple(side.shape[-1] for side in made.numbers)
        assert (shape.user_vectors, shape.item_vectors) == tuple(side.shape[-1] for side in made.vectors)
        assert shape.sequences == tuple((one.elements.shape[-1], one.weights is not None) for one in made.sequences)


def test_a_history_comes_with_the_item_it_is_compared_with() -> None:
    encoder = tiny_encoder()
    trunk, inputs = Trunk(encoder.spec, encoder.rows), encoded(encoder, 5)
    (history,) = trunk.assemble(inputs, trunk.numbers(inputs)["like"]).sequences
    known = inputs["encoded.item_id"]
    assert torch.equal(history.target, trunk.tables.of("item_id")[known - 1, :4])
    assert torch.equal(history.mask, (inputs["encoded.history"] > 0).float()) and history.weights is not None


@pytest.mark.parametrize(
    ("reads", "size", "width"),
    [
        (Reads(first_order=False), 4, 4),
        (Reads(lambda fields, declared: 0), 0, 1),
        (Reads(lambda fields, _: fields), 3, 4),
    ],
)
def test_the_trunk_holds_what_is_read_and_no_more(reads: Reads, size: int, width: int) -> None:
    encoder = clicks_encoder(numbers=False)
    trunk = Trunk(encoder.spec, encoder.rows, reads=reads)
    (table,) = trunk.tables.parameters()
    assert table.shape[1] == width
    inputs = {
        "encoded.c1": torch.tensor([2, 0]),
        "encoded.c2": torch.tensor([3, 3]),
        "encoded.i1": torch.tensor([1, 2]),
    }
    made = trunk.assemble(inputs, trunk.numbers(inputs)["like"])
    assert trunk.shape("like").item_fields == (size,) * (3 if size else 0)
    assert [block.shape for block in made.item_fields.blocks] == ([(2, 3, size)] if size else [])


def test_a_scene_of_rows_alone_scores_with_the_head_like() -> None:
    encoder = clicks_encoder(numbers=False)
    config = config_for("deepfm", "default", encoder.rows, 1, encoder.id_types, ("like",), fm_size=4, hidden=(4,))
    ranker = Ranker(encoder.spec, config).eval()
    rows = {name: torch.tensor([1, 2, 0, 3, 1]) for name in ("encoded.c1", "encoded.c2", "encoded.i1")}
    score, like, score_logit, like_logit = ranker(rows)
    assert score.shape == (5,) and torch.equal(score, like) and torch.equal(score_logit, like_logit)
    assert set(ranker.member(0).heads) == {"like"}


def test_a_network_without_like_repeats_choose() -> None:
    encoder = tiny_encoder()
    ranker = Ranker(tiny_spec(), replace(tiny_config(encoder), heads=("choose",))).eval()
    _, _, score_logit, like_logit = ranker(encoded(encoder, 3))
    assert torch.equal(score_logit, like_logit)
