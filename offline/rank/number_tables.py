"""Encoded rows and lists with their numbers: crosses computed and normalised once, so that no epoch does it again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from torch import Tensor

from data_exchange_center import columns as c
from data_exchange_center.encoder import ENCODED, RAW
from data_exchange_center.errors import DataError
from data_exchange_center.feature_spec import FeatureSpec
from offline.models.layers import Sides
from offline.models.trunk import Trunk
from offline.rank.feature_encoding import FittedEncoder, raw_columns
from offline.training.dataset import ChooseLists, Inputs, LikeRows

CHUNK_ROWS, CHUNK_LISTS = 32_768, 64
SMALLEST_DEVIATION = 1e-6


@dataclass(frozen=True)
class Lists:
    """Lists of one cut before encoding.

    Attributes:
        users: the snapshot's rows of the listed users [U]. items: the snapshot of all items [I].
        candidates: int64 [U, N], places in `items`, -1 beyond a list's end.
        scores: candidate feature -> float32 [U, N].
        labels: uint8 [U, N].
    """

    users: pa.Table
    items: pa.Table
    candidates: np.ndarray
    scores: Mapping[str, np.ndarray]
    labels: np.ndarray


def lists_of(
    candidates: pa.Table, chosen: pa.Table, users: pa.Table, items: pa.Table, spec: FeatureSpec, most: int, seed: int
) -> Lists:
    """Arranges a table of candidates as lists, keeping users of whom at least one candidate was chosen.

    Args:
        candidates: user_id, item_id, rank and the candidate features. chosen: user_id, item_id: what the users did next.
        users, items: the cut's snapshots.
        most: lists kept, a seeded sample beyond that.

    Raises:
        DataError: a candidate feature of the spec is not among the columns.
    """
    scored = [feature.name for feature in spec.of("candidate")]
    for name in scored:
        if name not in candidates.column_names:
            raise DataError(f"recall gives no {name!r} for its candidates (has {candidates.column_names})", field=name)
    # who had no event at the cut has no row in its snapshot
    candidates, chosen = (
        rows.filter(pc.is_in(rows[c.USER_ID], users[c.USER_ID].combine_chunks())) for rows in (candidates, chosen)
    )
    user = pc.index_in(candidates[c.USER_ID], value_set=users[c.USER_ID].combine_chunks()).to_numpy().astype(np.int64)
    item = pc.index_in(candidates[c.ITEM_ID], value_set=items[c.ITEM_ID].combine_chunks()).to_numpy().astype(np.int64)
    order = np.lexsort((candidates["rank"].to_numpy(), user))
    user, item = user[order], item[order]
    first = np.flatnonzero(np.r_[True, user[1:] != user[:-1]])
    lengths = np.diff(np.r_[first, len(user)])
    row = np.repeat(np.arange(len(first)), lengths)
    column = np.arange(len(user)) - first[row]
    shape = (len(first), int(lengths.max(initial=0)))
    places = np.full(shape, -1, np.int64)
    places[row, column] = item
    wanted = _pairs(chosen, users, items)
    labels = np.zeros(shape, np.uint8)
    labels[row, column] = np.isin(user * items.num_rows + item, wanted)
    scores = {}
    for name in scored:
        scores[name] = np.zeros(shape, np.float32)
        scores[name][row, column] = candidates[name].to_numpy()[order]
    kept = np.flatnonzero(labels.any(1))
    if len(kept) > most:
        kept = np.sort(np.random.default_rng(seed).permutation(kept)[:most])
    return Lists(
        users.take(user[first[kept]]),
        items,
        places[kept],
        {name: array[kept] for name, array in scores.items()},
        labels[kept],
    )


def _pairs(chosen: pa.Table, users: pa.Table, items: pa.Table) -> np.ndarray:
    user = pc.index_in(chosen[c.USER_ID], value_set=users[c.USER_ID].combine_chunks()).to_numpy().astype(np.int64)
    item = pc.index_in(chosen[c.ITEM_ID], value_set=items[c.ITEM_ID].combine_chunks()).to_numpy().astype(np.int64)
    return np.unique(user * items.num_rows + item)


def encode_rows(encoder: FittedEncoder, rows: pa.Table, scores: Mapping[str, np.ndarray]) -> Inputs:
    """Everything that the network takes for exposed rows: [R, ...] each. `now` is the row's own timestamp."""
    columns = raw_columns(encoder, rows, ("user", "item"))
    columns |= {f.name: scores[f.name] for f in encoder.spec.of("candidate") if f.name in scores}
    columns |= _moment(encoder.spec, rows)
    return _tensors(encoder.encode(columns))


def encode_lists(encoder: FittedEncoder, lists: Lists) -> tuple[Inputs, Inputs, Inputs]:
    """(user inputs [U, ...], item inputs [I, ...], candidate inputs [U, N]). `now` is the snapshot's moment of the user."""
    users = raw_columns(encoder, lists.users, ("user",)) | _moment(encoder.spec, lists.users)
    items = raw_columns(encoder, lists.items, ("item",))
    flat = _tensors(encoder.encode({name: array.ravel() for name, array in lists.scores.items()}))
    shape = lists.candidates.shape
    return (
        _tensors(encoder.encode(users)),
        _tensors(encoder.encode(items)),
        {name: tensor.reshape(shape) for name, tensor in flat.items()},
    )


def _moment(spec: FeatureSpec, table: pa.Table) -> dict[str, np.ndarray]:
    """The context features: `now` is all that a request brings."""
    return {feature.name: table[c.TIMESTAMP].to_numpy() for feature in spec.of("context")}


def _tensors(arrays: Mapping[str, np.ndarray]) -> Inputs:
    """Ids as int32 (half the memory), everything else as it is."""
    return {
        name: torch.from_numpy(
            array.astype(np.int32) if name.startswith(ENCODED) and array.dtype == np.int64 else array
        )
        for name, array in arrays.items()
    }


def row_values(trunk: Trunk, inputs: Inputs) -> dict[str, Tensor]:
    """Every number of exposed rows before normalisation, [R] each."""
    names = trunk.number_columns("like")
    rows = len(next(iter(inputs.values())))
    parts: dict[str, list[Tensor]] = {name: [] for name in names}
    for start in range(0, rows, CHUNK_ROWS):
        values = trunk.values({name: tensor[start : start + CHUNK_ROWS] for name, tensor in inputs.items()})
        for name in names:
            parts[name].append(values[name])
    return {name: torch.cat(part) for name, part in parts.items()}


def list_values(trunk: Trunk, user: Inputs, item: Inputs, candidate: Inputs, places: Tensor) -> dict[str, Tensor]:
    """Every number of lists before normalisation: [U, 1] for the user's side, [U, N] for the others."""
    names = trunk.number_columns("choose")
    parts: dict[str, list[Tensor]] = {name: [] for name in names}
    for start in range(0, len(places), CHUNK_LISTS):
        part = slice(start, start + CHUNK_LISTS)
        gathered = places[part].clamp(min=0)
        inputs = {name: tensor[part].unsqueeze(1) for name, tensor in user.items()}
        inputs |= {name: tensor[gathered] for name, tensor in item.items()}
        inputs |= {name: tensor[part] for name, tensor in candidate.items()}
        values = trunk.values(inputs)
        for name in names:
            parts[name].append(values[name])
    wide = {name: torch.cat(part) for name, part in parts.items()}
    return {
        name: tensor if trunk.sides[name] == "user" else tensor.expand(places.shape) for name, tensor in wide.items()
    }


def set_statistics(
    trunk: Trunk, rows: Mapping[str, Tensor], lists: Sequence[tuple[Mapping[str, Tensor], Tensor]]
) -> None:
    """Fits the trunk's normalisation: from exposed rows where they have the number, else from the lists' candidates.

    Args:
        rows: values of the fit's exposed rows.
        lists: values and places of each cut's lists.
    """
    for place, name in enumerate(trunk.all_numbers):
        sample = rows[name] if name in rows else torch.cat([values[name][places >= 0] for values, places in lists])
        deviation = float(sample.double().std()) if len(sample) > 1 else 0.0
        trunk.means[place] = float(sample.double().mean()) if len(sample) else 0.0
        trunk.deviations[place] = deviation if deviation > SMALLEST_DEVIATION else 1.0


def like_rows(
    trunk: Trunk, inputs: Inputs, values: Mapping[str, Tensor], labels: Tensor, users: Tensor, parts: Tensor
) -> LikeRows:
    """Rows as the loop takes them."""
    return LikeRows(_embedded(trunk, inputs), trunk.normalised(values, "like"), labels, users, parts)


def choose_lists(trunk: Trunk, user: Inputs, item: Inputs, values: Mapping[str, Tensor], lists: Lists) -> ChooseLists:
    """Lists as the loop takes them."""
    numbers = trunk.normalised(values, "choose")
    squeezed = Sides(numbers.user.squeeze(1), numbers.item)
    return ChooseLists(
        _embedded(trunk, user),
        _embedded(trunk, item),
        torch.from_numpy(lists.candidates),
        squeezed,
        torch.from_numpy(lists.labels),
    )


def _embedded(trunk: Trunk, inputs: Inputs) -> Inputs:
    """What is left to look up or weigh once the numbers are made: ids, weights of sequences, dense vectors."""
    kept = {ENCODED + feature.name for feature in trunk.embedded}
    kept |= {RAW + feature.weights for feature in trunk.embedded if feature.weights}
    kept |= {ENCODED + feature.name for side in ("user", "item") for feature in trunk.vector_columns(side)}
    return {name: tensor for name, tensor in inputs.items() if name in kept}
