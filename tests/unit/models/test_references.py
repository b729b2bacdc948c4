"""The zoo's formulas against slow ones, written in numpy from the papers' definitions."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import torch
from torch import Tensor

from offline.models.autoint import Interacting
from offline.models.dcn import CrossVectors
from offline.models.dcnv2 import CrossMatrices, DcnV2Options, Experts
from offline.models.deepfefm import FieldPairs
from offline.models.din import ActivationUnit, DinOptions, Interest
from offline.models.dlrm import pair_places
from offline.models.ffm import Ffm, FfmOptions
from offline.models.finalmlp import BilinearFusion
from offline.models.fm import Fm, FmOptions
from offline.models.gate_dnn import FieldGates
from offline.models.layers import Sides
from offline.models.trunk import Assembled, Fields, Shape
from offline.models.xdeepfm import FullCross, LowRankCross

ROWS, FIELDS, SIZE = 3, 4, 2


def array(tensor: object) -> np.ndarray:
    """As float64."""
    assert isinstance(tensor, Tensor)
    return tensor.detach().double().numpy()


def close(made: Tensor, expected: np.ndarray) -> None:
    assert made.shape == expected.shape
    np.testing.assert_allclose(array(made), expected, atol=2e-5, rtol=2e-5)


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def two_sides(size: int, user: int = 2, item: int = 3, numbers: int = 2) -> tuple[Shape, Assembled]:
    """Rows with fields on both sides and numbers on the item's."""
    torch.manual_seed(1)
    shape = Shape((size,) * user, (size,) * item, 0, numbers, 0, 0)
    nothing = torch.zeros(1, 0)
    return shape, Assembled(
        Fields((torch.randn(ROWS, user, size),)),
        Fields((torch.randn(ROWS, item, size),)),
        (torch.randn(ROWS), torch.randn(ROWS)),
        Sides(nothing, torch.randn(ROWS, numbers)),
        Sides(nothing, nothing),
    )


def test_fm_is_the_double_loop_over_pairs() -> None:
    shape, inputs = two_sides(SIZE)
    model = Fm(shape, FmOptions(size=SIZE))
    weights = model.linear.item
    assert weights is not None
    torch.nn.init.normal_(weights)
    factors = array(model.pairs.item_weighted.vectors)
    numbers, expected = array(inputs.numbers.item), []
    for row in range(ROWS):
        fields = [*array(inputs.user_fields.blocks[0])[row], *array(inputs.item_fields.blocks[0])[row]]
        fields += [value * factor for value, factor in zip(numbers[row], factors, strict=True)]
        linear = array(inputs.first_order[0])[row] + array(inputs.first_order[1])[row] + numbers[row] @ array(weights)
        expected.append(linear + sum(a @ b for a, b in combinations(fields, 2)))
    close(model(inputs), np.array(expected))


def test_ffm_is_the_double_loop_over_pairs_of_field_aware_factors() -> None:
    user, item, size = 2, 3, 2
    fields = user + item + 2  # numbers of each side are one
    shape, inputs = two_sides(fields * size, user, item)
    model = Ffm(shape, FfmOptions(size=size))
    assert model.item.dense is not None
    dense = array(inputs.numbers.item) @ array(model.item.dense.weight).T
    expected = array(inputs.first_order[0] + inputs.first_order[1])
    for row in range(ROWS):
        factors = [
            *array(inputs.user_fields.blocks[0])[row],
            *array(inputs.item_fields.blocks[0])[row],
            dense[row],
        ]
        factors = [factor.reshape(fields, size) for factor in factors]  # of each field, for each partner
        expected[row] += sum(factors[a][b] @ factors[b][a] for a, b in combinations(range(user + item + 1), 2))
    close(model(inputs), expected)


def test_fefm_pairs_meet_through_symmetric_matrices() -> None:
    torch.manual_seed(0)
    layer, fields = FieldPairs(FIELDS, SIZE), torch.randn(ROWS, FIELDS, SIZE)
    matrices, x = array(layer.halves), array(fields)
    expected = [
        [x[row, a] @ (half + half.T) @ x[row, b] for half, (a, b) in zip(matrices, pairs, strict=True)]
        for row in range(ROWS)
        for pairs in [list(combinations(range(FIELDS), 2))]
    ]
    close(layer(fields), np.array(expected))


def test_places_of_pairs_are_the_upper_triangle() -> None:
    assert pair_places(FIELDS).tolist() == [a * FIELDS + b for a, b in combinations(range(FIELDS), 2)]


def test_a_layer_of_the_cin_is_its_definition() -> None:
    torch.manual_seed(0)
    before, maps = 3, 5
    crossed, x = torch.randn(ROWS, SIZE, before), torch.randn(ROWS, SIZE, FIELDS)
    layer = FullCross(before, FIELDS, maps)
    weight = array(layer.linear.weight).reshape(maps, before, FIELDS)
    expected = np.zeros((ROWS, SIZE, maps))
    for h in range(maps):
        for i in range(before):
            for j in range(FIELDS):
                expected[..., h] += weight[h, i, j] * array(crossed)[..., i] * array(x)[..., j]
    close(layer(crossed, x), expected)


def test_a_layer_of_low_rank_is_the_full_one_with_the_product_of_its_factors() -> None:
    torch.manual_seed(0)
    before, maps, rank = 3, 5, 2
    crossed, x = torch.randn(ROWS, SIZE, before), torch.randn(ROWS, SIZE, FIELDS)
    low, full = LowRankCross(before, FIELDS, maps, rank), FullCross(before, FIELDS, maps)
    left, right = low.left.weight.reshape(maps, rank, before), low.right.weight.reshape(maps, rank, FIELDS)
    with torch.no_grad():
        full.linear.weight.copy_(torch.einsum("hli,hlj->hij", left, right).flatten(1))
    close(low(crossed, x), array(full(crossed, x)))


def test_dcn_crosses_by_its_formula() -> None:
    torch.manual_seed(0)
    layer, x = CrossVectors(FIELDS, 3), torch.randn(ROWS, FIELDS)
    torch.nn.init.normal_(layer.biases)
    expected = array(x)
    for weight, bias in zip(array(layer.weights), array(layer.biases), strict=True):
        expected = np.stack([array(x)[row] * (one @ weight) + bias + one for row, one in enumerate(expected)])
    close(layer(x), expected)


def test_dcnv2_crosses_by_its_formula() -> None:
    torch.manual_seed(0)
    layer, x = CrossMatrices(FIELDS, DcnV2Options(crosses=2)), torch.randn(ROWS, FIELDS)
    expected = array(x)
    for linear in layer.layers:
        expected = array(x) * (expected @ array(linear.weight).T + array(linear.bias)) + expected
    close(layer(x), expected)


def test_dcnv2_mixes_its_low_rank_experts_by_its_formula() -> None:
    torch.manual_seed(0)
    experts, rank = 3, 2
    layer, x = Experts(FIELDS, experts, rank), torch.randn(ROWS, FIELDS)
    down = array(layer.down.weight).reshape(experts, rank, FIELDS)
    up = array(layer.up.weight).reshape(FIELDS, experts, rank)
    expected = np.zeros((ROWS, FIELDS))
    for row, one in enumerate(array(x)):
        scores = np.exp(array(layer.gate.weight) @ one + array(layer.gate.bias))
        for k in range(experts):
            low = np.tanh(array(layer.middle)[k].T @ np.tanh(down[k] @ one))
            expected[row] += scores[k] / scores.sum() * (up[:, k] @ low + array(layer.up.bias))
    close(layer(x), expected)


def test_autoint_attends_by_its_formula() -> None:
    torch.manual_seed(0)
    size, heads = 4, 2
    layer, fields = Interacting(size, heads, 0.0), torch.randn(ROWS, FIELDS, size)
    query, key, value, residual = array(layer.maps.weight).reshape(4, size, size)
    expected = np.zeros((ROWS, FIELDS, size))
    for row, x in enumerate(array(fields)):
        for head in range(heads):
            part = slice(head * size // heads, (head + 1) * size // heads)
            for m in range(FIELDS):
                scores = np.exp([(query[part] @ x[m]) @ (key[part] @ x[k]) for k in range(FIELDS)])
                expected[row, m, part] = sum(
                    share * (value[part] @ x[k]) for k, share in enumerate(scores / scores.sum())
                )
        expected[row] = np.maximum(expected[row] + x @ residual.T, 0)
    close(layer(fields), expected)


def test_gates_are_sigmoids_of_their_own_field() -> None:
    torch.manual_seed(0)
    fields = torch.randn(ROWS, FIELDS, SIZE)
    vector, bit = FieldGates(FIELDS, SIZE, "vector"), FieldGates(FIELDS, SIZE, "bit")
    of_vector, of_bit = np.zeros((ROWS, FIELDS, SIZE)), np.zeros((ROWS, FIELDS, SIZE))
    for row in range(ROWS):
        for field in range(FIELDS):
            x = array(fields)[row, field]
            of_vector[row, field] = x * sigmoid(x @ array(vector.weight)[field])
            of_bit[row, field] = x * sigmoid(x @ array(bit.weight)[field])
    close(vector(fields), of_vector)
    close(bit(fields), of_bit)


def test_finalmlp_fuses_head_by_head() -> None:
    torch.manual_seed(0)
    layer, first, second = BilinearFusion(4, 2), torch.randn(ROWS, 4), torch.randn(ROWS, 4)
    weight, bias = array(layer.linear.weight)[0], array(layer.linear.bias)[0]
    expected = []
    for ours, theirs in zip(array(first), array(second), strict=True):
        heads = [ours[h * 2 : h * 2 + 2] @ array(layer.weight)[h] @ theirs[h * 2 : h * 2 + 2] for h in range(2)]
        expected.append(weight @ np.concatenate([ours, theirs]) + bias + sum(heads))
    close(layer(first, second), np.array(expected))


def test_dins_activation_unit_reads_element_target_difference_and_product() -> None:
    torch.manual_seed(0)
    layer = ActivationUnit(SIZE, (3,))
    elements, target = torch.randn(1, 5, SIZE), torch.randn(ROWS, SIZE)
    out = layer.rest[-1]
    expected = np.zeros((ROWS, 5))
    for row, t in enumerate(array(target)):
        for place, e in enumerate(array(elements)[0]):
            hidden = array(layer.first.weight) @ np.concatenate([e, t, e - t, e * t]) + array(layer.first.bias)
            expected[row, place] = (array(out.weight) @ np.maximum(hidden, 0) + array(out.bias))[0]
    close(layer(elements, target), expected)


def test_dins_interest_is_the_weighted_sum_and_padding_has_no_part_in_it() -> None:
    torch.manual_seed(0)
    layer = Interest(SIZE, DinOptions(unit_hidden=(3,)))
    elements, target = torch.randn(1, 3, SIZE), torch.randn(ROWS, SIZE)
    mask, liked = torch.tensor([[1.0, 1.0, 0.0]]), torch.tensor([[1.0, 0.0, 1.0]])
    assert layer.unit is not None
    weight = array(layer.unit(elements, target))
    e = array(elements)[0]
    expected = [[*(w[0] * e[0] + w[1] * e[1]), *(w[0] * e[0])] for w in weight]
    close(layer(elements, mask, liked, target), np.array(expected))
