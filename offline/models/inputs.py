"""How architectures read `Assembled`: as one flat vector, as a matrix of fields of one size, as a linear term, as an FM.

Everything here keeps both sides apart for as long as it can, so that a request pays for its user once; `joined` brings them
together where an architecture has to see them side by side. A block of no width may have any leading shape.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from offline.models.fields_by_id import FieldsById
from offline.models.kernels import field_sums, field_sums_beside
from offline.models.layers import Projections, Sides, WeightedNumbers, fm_pooling
from offline.models.trunk import Assembled, Fields, Shape


def joined(sides: Sides, axis: int = -1) -> Tensor:
    """Both sides as one tensor, the user's repeated for each item.

    Args:
        sides: [*u, n] and [*i, m] with axis -1, [*u, n, d] and [*i, m, d] with axis -2.

    Returns:
        [*i, n + m] or [*i, n + m, d].
    """
    if sides.user.shape[axis] == 0:
        return sides.item
    lead = torch.broadcast_shapes(sides.user.shape[:axis], sides.item.shape[:axis])
    return torch.cat([part.expand(*lead, *part.shape[axis:]) for part in sides], axis)


def beside(blocks: Sequence[Tensor]) -> Tensor:
    """Blocks of one side, side by side: [*i, n] each; those of no width are left out."""
    wide = [block for block in blocks if block.shape[-1]]
    if not wide:
        return torch.zeros(1, 0)
    return wide[0] if len(wide) == 1 else torch.cat(wide, -1)


def pair_places(fields: int) -> Tensor:
    """Places of all pairs a < b in a flattened [fields, fields] matrix, int64 [fields (fields - 1) / 2]."""
    first, second = torch.triu_indices(fields, fields, 1)
    return first * fields + second


def flat(inputs: Assembled, *, fields: bool = True, numbers: bool = True, vectors: bool = True) -> Sides:
    """What is asked for, side by side: embeddings, normalised numbers, dense vectors; ([*u, n], [*i, m])."""

    def side(embeddings: Fields, values: Tensor, dense: Tensor) -> Tensor:
        return beside(
            [*(embeddings.flat() if fields else ()), *([values] if numbers else ()), *([dense] if vectors else ())]
        )

    return Sides(
        side(inputs.user_fields, inputs.numbers.user, inputs.vectors.user),
        side(inputs.item_fields, inputs.numbers.item, inputs.vectors.item),
    )


def flat_beside_ids(
    inputs: Assembled, *, fields: bool = True, numbers: bool = True, vectors: bool = True
) -> tuple[Sides, FieldsById | None]:
    """As `flat`, but fields of the item's side that came by id stay so: they stand before the others."""
    by_id = inputs.item_fields.by_id if fields else None
    if by_id is not None:
        inputs = inputs._replace(item_fields=Fields(()))
    return flat(inputs, fields=fields, numbers=numbers, vectors=vectors), by_id


def flat_sizes(shape: Shape, *, fields: bool = True, numbers: bool = True, vectors: bool = True) -> tuple[int, int]:
    """Widths (n, m) of what `flat` gives for the same switches."""
    return (
        fields * sum(shape.user_fields) + numbers * shape.user_numbers + vectors * shape.user_vectors,
        fields * sum(shape.item_fields) + numbers * shape.item_numbers + vectors * shape.item_vectors,
    )


class LinearTerm(nn.Module):
    """A bias, the one-dimensional weights of all ids, and a weight for each number and each element of a dense vector.

    Args:
        shape: sizes of what the trunk assembles.
        numbers, vectors: whether these enter.
    """

    def __init__(self, shape: Shape, *, numbers: bool = True, vectors: bool = True) -> None:
        super().__init__()
        self.blocks = {"fields": False, "numbers": numbers, "vectors": vectors}
        user, item = flat_sizes(shape, **self.blocks)
        self.bias = nn.Parameter(torch.zeros(()))
        self.user = nn.Parameter(torch.zeros(user)) if user else None
        self.item = nn.Parameter(torch.zeros(item)) if item else None

    def forward(self, inputs: Assembled) -> Tensor:
        """Logit [*i]."""
        block = flat(inputs, **self.blocks)
        logit = inputs.first_order[0] + inputs.first_order[1] + self.bias
        if self.user is not None:
            logit = logit + functional.linear(block.user, self.user.unsqueeze(0)).squeeze(-1)
        if self.item is not None:
            logit = logit + functional.linear(block.item, self.item.unsqueeze(0)).squeeze(-1)
        return logit


class FmPooling(nn.Module):
    """The second order of a factorization machine; each side is summed on its own and then broadcast.

    Args:
        shape: sizes of what the trunk assembles.
        size: to which fields are projected.
        numbers: each number is a field too, times a learned vector.
    """

    def __init__(self, shape: Shape, size: int, numbers: bool) -> None:
        super().__init__()
        self.user_projections = Projections(shape.user_fields, size)
        self.item_projections = Projections(shape.item_fields, size)
        self.size, self.numbers = size, numbers
        if numbers:
            self.user_weighted = WeightedNumbers(shape.user_numbers, size)
            self.item_weighted = WeightedNumbers(shape.item_numbers, size)

    def forward(self, inputs: Assembled) -> Tensor:
        """Pairwise products of all fields, summed, per dimension: [*i, size]."""
        user = field_sums(self.user_projections(inputs.user_fields.blocks))
        item = field_sums(self.item_projections(inputs.item_fields.blocks))
        return self._pooled(inputs, user, item)

    def beside(self, inputs: Assembled) -> tuple[Tensor, Assembled]:
        """As `forward`, and the inputs for what else reads their fields; see `field_sums_beside`."""
        user_sums, user = _sums_beside(self.user_projections, inputs.user_fields)
        item_sums, item = _sums_beside(self.item_projections, inputs.item_fields)
        return self._pooled(inputs, user_sums, item_sums), inputs._replace(user_fields=user, item_fields=item)

    def _pooled(self, inputs: Assembled, user: tuple[Tensor, Tensor], item: tuple[Tensor, Tensor]) -> Tensor:
        (user_sum, user_squares), (item_sum, item_squares) = user, item
        if self.numbers:
            added, squares = self.user_weighted(inputs.numbers.user)
            user_sum, user_squares = user_sum + added, user_squares + squares
            added, squares = self.item_weighted(inputs.numbers.item)
            item_sum, item_squares = item_sum + added, item_squares + squares
        return fm_pooling(user_sum + item_sum, user_squares + item_squares)


def _sums_beside(projections: Projections, fields: Fields) -> tuple[tuple[Tensor, Tensor], Fields]:
    if fields.by_id is not None and projections.change_nothing:
        return (fields.by_id.sums.vectors, fields.by_id.sums.squares), fields
    met = projections(fields.blocks)
    # where nothing was projected, they are what others read
    if fields.by_id is None and len(fields.blocks) == 1 and met is fields.blocks[0]:
        sums, squares, passed = field_sums_beside(met)
        return (sums, squares), Fields((passed,))
    return field_sums(met), fields


class FieldMatrix(nn.Module):
    """All fields as vectors of one size.

    Args:
        shape: sizes of what the trunk assembles.
        size: of a field.
        numbers: each number is a field, its value times a learned vector.
        vectors: the dense vectors of a side are one field, projected.
    """

    def __init__(self, shape: Shape, size: int, *, numbers: bool = False, vectors: bool = True) -> None:
        super().__init__()
        self.size = size
        self.user = _SideFields(shape.user_fields, shape.user_numbers * numbers, shape.user_vectors * vectors, size)
        self.item = _SideFields(shape.item_fields, shape.item_numbers * numbers, shape.item_vectors * vectors, size)

    @property
    def count(self) -> int:
        """Fields of both sides."""
        return self.user.count + self.item.count

    def forward(self, inputs: Assembled) -> Tensor:
        """[*i, count, size], the user's fields first."""
        return joined(self.sides(inputs), -2)

    def sides(self, inputs: Assembled) -> Sides:
        """[*u, F, size] and [*i, G, size]."""
        return Sides(
            self.user(inputs.user_fields, inputs.numbers.user, inputs.vectors.user),
            self.item(inputs.item_fields, inputs.numbers.item, inputs.vectors.item),
        )


class _SideFields(nn.Module):
    def __init__(self, sizes: Sequence[int], numbers: int, vectors: int, size: int) -> None:
        super().__init__()
        self.size, self.count = size, len(sizes) + numbers + (vectors > 0)
        self.projections = Projections(sizes, size)
        self.numbers = nn.Parameter(torch.randn(numbers, size) * 0.05) if numbers else None
        self.vectors = nn.Linear(vectors, size, bias=False) if vectors else None

    def forward(self, fields: Fields, numbers: Tensor, vectors: Tensor) -> Tensor:
        parts = [self.projections(fields.blocks)] if fields.blocks else []
        if self.numbers is not None:
            parts.append(numbers.unsqueeze(-1) * self.numbers)
        if self.vectors is not None:
            parts.append(self.vectors(vectors).unsqueeze(-2))
        if not parts:
            return numbers.new_zeros(1, 0, self.size)
        return parts[0] if len(parts) == 1 else torch.cat(parts, -2)
