"""Layers against their definitions."""

from __future__ import annotations

import torch

from offline.models.layers import (
    Mlp,
    Projections,
    Sides,
    TargetAttention,
    TwoSidedLinear,
    fm_pooling,
)


def test_fm_pooling_is_the_sum_of_all_pairwise_products() -> None:
    torch.manual_seed(0)
    fields = torch.randn(5, 4, 3)  # [rows, fields, size]
    pairs = [fields[:, a] * fields[:, b] for a in range(4) for b in range(a + 1, 4)]
    made = fm_pooling(fields.sum(1), fields.square().sum(1))
    assert torch.allclose(made, torch.stack(pairs).sum(0), atol=1e-5)


def test_a_two_sided_layer_is_the_layer_on_the_concatenation() -> None:
    torch.manual_seed(0)
    layer = TwoSidedLinear(3, 2, 4)
    user, item = torch.randn(1, 3), torch.randn(7, 2)
    assert layer.user is not None
    whole = torch.cat([layer.user.weight, layer.item.weight], 1)
    expected = torch.cat([user.expand(7, 3), item], 1) @ whole.T + layer.item.bias
    assert torch.allclose(layer(Sides(user, item)), expected, atol=1e-6)


def test_an_mlp_broadcasts_lists_as_it_scores_rows() -> None:
    torch.manual_seed(0)
    mlp = Mlp(3, 2, (8, 4), 0.0)
    users, items = torch.randn(4, 3), torch.randn(4, 5, 2)
    lists = mlp(Sides(users.unsqueeze(1), items))
    rows = mlp(Sides(users.repeat_interleave(5, 0), items.reshape(20, 2)))
    assert lists.shape == (4, 5)
    assert torch.allclose(lists.reshape(20), rows, atol=1e-6)


def test_projections_bring_fields_to_one_size_and_leave_those_that_have_it() -> None:
    layer = Projections((3, 3, 4), 4)
    blocks = [torch.randn(5, 2, 3), torch.randn(5, 1, 4)]
    made = layer(blocks)
    assert made.shape == (5, 3, 4)
    assert torch.allclose(made[:, 1], blocks[0][:, 1] @ layer.weights[0][1], atol=1e-6)
    assert torch.equal(made[:, 2], blocks[1][:, 0])


def test_attention_looks_at_what_resembles_the_target_and_never_at_padding() -> None:
    layer = TargetAttention(2, 2)
    with torch.no_grad():
        layer.query.weight.copy_(torch.eye(2) * 20)
    elements = torch.tensor([[[1.0, 0.0], [0.0, 1.0], [9.0, 9.0]]])
    mask = torch.tensor([[1.0, 1.0, 0.0]])
    made = layer(elements, mask, torch.tensor([[1.0, 0.0], [0.0, 1.0]]))
    assert torch.allclose(made, torch.eye(2), atol=1e-3)


def test_attention_over_an_empty_history_is_zero() -> None:
    made = TargetAttention(2, 3)(torch.randn(1, 4, 2), torch.zeros(1, 4), torch.randn(5, 3))
    assert made.tolist() == [[0.0, 0.0]] * 5
