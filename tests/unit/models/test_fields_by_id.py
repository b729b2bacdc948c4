"""Fields by id give what the plain form gives, values and gradients, and only where it pays."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from data_exchange_center.vocabulary import PADDING
from offline.models import fields_by_id as module
from offline.models.fields_by_id import FieldsById, distinct_by_field, fields_by_id, sum_over_fields
from offline.models.kernels import look_up
from offline.models.ranker import Member, Ranker, config_for
from tests.unit.models.test_kernels import _one_thread, random, same  # noqa: F401  # the fixture: training on one thread
from tests.unit.models.tiny_scene import clicks_encoder
from tests.unit.training.clicks import click_batch


def ids(rows: int, fields: int, most: int = 6) -> Tensor:
    """Ids of a table of which every field has its part, as vocabularies do; the first is padding."""
    drawn = torch.randint(0, most, (rows, fields), generator=torch.Generator().manual_seed(rows))
    return torch.where(drawn > 0, drawn + most * torch.arange(fields), PADDING)


@pytest.mark.parametrize("shape", [(50, 7), (1, 1), (300, 3), (0, 4)])
def test_distinct_values_of_each_column(shape: tuple[int, int]) -> None:
    rows = ids(*shape)
    values, places, starts = distinct_by_field(rows)
    assert torch.equal(values[places.long()], rows)
    for field in range(shape[1]):
        found = values[starts[field] : starts[field + 1]]
        assert sorted(found.tolist()) == sorted(set(rows[:, field].tolist()))


def test_ids_that_fall_into_one_slot_stay_apart() -> None:
    rows = (torch.arange(12) % 4 * 4096).unsqueeze(1)
    values, places, _ = distinct_by_field(rows)
    assert values.tolist() == [0, 4096, 8192, 12288] and places[:, 0].tolist() == [0, 1, 2, 3] * 3


@pytest.mark.parametrize("fields", [1, 4, 7])
def test_sum_over_fields(fields: int) -> None:
    values, places, _ = distinct_by_field(ids(40, fields))
    table = random(len(values), 5)
    same((sum_over_fields(table, places),), (table[places.long()].sum(1),), table)


def by_id(table: Tensor, rows: Tensor, size: int) -> FieldsById:
    made = fields_by_id(rows, lambda distinct: look_up(table, distinct, size))
    assert made is not None
    return made


def test_sums_over_a_row_s_fields() -> None:
    table, rows = random(50, 5), ids(40, 7)
    plain = functional.embedding(rows, table, PADDING)
    vectors, weights = plain[..., :4], plain[..., 4:]
    same(tuple(by_id(table, rows, 4).sums), (weights.sum(1), vectors.sum(1), vectors.square().sum(1)), table)


def test_a_linear_layer_on_fields_side_by_side() -> None:
    table, rows, weight = random(50, 4), ids(40, 7), random(3, 28)
    plain = functional.linear(functional.embedding(rows, table, PADDING).flatten(1), weight)
    same((by_id(table, rows, 4).linear(weight),), (plain,), table, weight)


def test_vectors_of_every_row_and_field() -> None:
    table, rows = random(50, 4), ids(40, 7)
    same((by_id(table, rows, 4).apart(),), (functional.embedding(rows, table, PADDING),), table)


def test_the_plain_form_is_taken_where_ids_hardly_repeat_and_where_nothing_learns() -> None:
    table = random(2000, 4)
    assert fields_by_id(torch.arange(1, 601).view(100, 6), lambda rows: look_up(table, rows, 4)) is None
    with torch.no_grad():
        assert fields_by_id(ids(40, 7), lambda rows: look_up(table, rows, 4)) is None


def member(preset: str, **changes: object) -> Member:
    torch.manual_seed(0)
    encoder = clicks_encoder(True)
    options = {"fm_size": 4, "hidden": (8, 4), "dropout": 0.0} | changes
    config = config_for("deepfm", preset, encoder.rows, 1, encoder.id_types, ("like",), **options)
    made = Ranker(encoder.spec, config).train().member(0)
    made.trunk.tables.begin(made.trunk.tables.initializer)
    return made


def learned(network: Member) -> tuple[Tensor, dict[str, Tensor]]:
    """Logits of a batch, and gradients."""
    batch = click_batch(200)
    logits = network.heads["like"](network.trunk.assemble(batch.inputs, batch.numbers))
    functional.binary_cross_entropy_with_logits(logits, batch.labels).backward()
    return logits.detach(), {name: one.grad for name, one in network.named_parameters() if one.grad is not None}


@pytest.mark.parametrize(
    ("preset", "changes"),
    [
        ("default", {}),
        ("guo", {}),
        ("numbers_in_fm", {}),
        ("deep_on_dense", {}),
        ("default", {"fm_size": 3}),  # what the FM pools is projected
    ],
)
def test_deepfm_learns_the_same_by_id(monkeypatch: pytest.MonkeyPatch, preset: str, changes: dict[str, int]) -> None:
    taken = []
    real = module.distinct_by_field
    monkeypatch.setattr(module, "distinct_by_field", lambda rows: taken.append(1) or real(rows))  # type: ignore[func-returns-value]
    logits, gradients = learned(member(preset, **changes))
    assert taken
    monkeypatch.setattr("offline.models.trunk.fields_by_id", lambda rows, look_up: None)
    plain_logits, plain_gradients = learned(member(preset, **changes))
    torch.testing.assert_close(logits, plain_logits, rtol=1e-5, atol=1e-6)
    assert gradients.keys() == plain_gradients.keys()
    for name, gradient in gradients.items():
        torch.testing.assert_close(gradient, plain_gradients[name], rtol=1e-4, atol=1e-6, msg=name)


def test_rows_of_a_table_learned_by_row_get_the_same_gradients(monkeypatch: pytest.MonkeyPatch) -> None:
    def touched(plain: bool) -> Tensor:
        network = member("default")
        network.trunk.tables.learn_by_row()
        network.train()
        if plain:
            monkeypatch.setattr("offline.models.trunk.fields_by_id", lambda rows, look_up: None)
        learned(network)
        found = network.trunk.tables.sizes["4"].touched()  # type: ignore[operator]
        made = torch.zeros(network.trunk.tables.sizes["4"].rows, 5)  # type: ignore[arg-type]
        return made.index_add_(0, found.rows, found.gradients)

    torch.testing.assert_close(touched(plain=False), touched(plain=True), rtol=1e-4, atol=1e-6)


def test_by_id_obeys_autocast() -> None:
    table, rows, weight = random(50, 4), ids(40, 7), random(3, 28)
    with torch.autocast("cpu", torch.bfloat16):
        made = by_id(table, rows, 4).linear(weight)
    assert made.dtype == torch.float32  # sums of many stay exact; the next layer's products are bfloat16
    torch.testing.assert_close(made, by_id(table, rows, 4).linear(weight))
