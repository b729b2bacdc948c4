"""A chain's ranker goes on from another run: its vocabularies grow, its weights and its optimizers' state stay.

Ids never change. A token that came since gets the next id of its feature, and its embedding row begins as UNK's, which the token
was until then, without optimizer state. Statistics of numbers stay those of the first fit, so that weights keep their meaning.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from data_exchange_center.errors import DataError
from data_exchange_center.settings import RankSettings
from data_exchange_center.vocabulary import PADDING, UNKNOWN, Vocabulary
from offline.models.numbers import HEADS, Head
from offline.models.ranker import Ranker
from offline.models.tables import EmbeddingTables
from offline.rank.feature_encoding import FittedEncoder
from offline.rank.fitting import Optimizers
from offline.training.checkpoint import Checkpoint, checkpoint_name, load_checkpoint, optimizer_state, save_checkpoint
from offline.training.loop import optimizer_for

OPTIMIZERS = "optimizers"


def save_optimizers(folder: Path, optimizers: Optimizers) -> None:
    """Keeps the optimizers' state beside a fit's network."""
    state = {name: optimizer.state_dict() for name, optimizer in optimizers.items()}
    save_checkpoint(folder / OPTIMIZERS, Checkpoint(0, state), keep=1)


def with_new_tokens(encoder: FittedEncoder, seen: Mapping[str, Vocabulary]) -> FittedEncoder:
    """The encoder with learned vocabularies grown by what another fit found; nothing else of it changes.

    Args:
        seen: vocabularies of a fit on more rows, by owner: their tokens are appended in their order.
    """
    grown = {}
    for name, known in encoder.vocabularies.items():
        policy = encoder.spec[name].vocabulary
        new = [token for token in seen[name].tokens if token is not None and token not in known.ids]
        if policy is not None and policy.policy == "learned" and new:
            grown[name] = replace(known, tokens=(*known.tokens, *new), capacity=known.capacity + len(new))
    return replace(encoder, vocabularies={**encoder.vocabularies, **grown})


@torch.no_grad()
def grown_ranker(before: Ranker, encoder: FittedEncoder) -> Ranker:
    """The network with a row for every id of the grown encoder; what it says of known ids does not change."""
    after = Ranker(before.spec, replace(before.config, rows=encoder.rows))
    known, tensors = before.state_dict(), after.state_dict()
    for name, tensor in known.items():
        if tensors[name].shape == tensor.shape:
            tensors[name] = tensor
    after.load_state_dict(tensors)
    for place in range(before.config.members):
        old, new = before.member(place).trunk.tables, after.member(place).trunk.tables
        for owner in new.owners:
            rows, count = new.of(owner), len(old.of(owner))
            rows[:count] = old.of(owner)
            rows[count:] = rows[UNKNOWN - 1 - PADDING]
    return after


def restored_optimizers(folder: Path, before: Ranker, after: Ranker, settings: RankSettings) -> Optimizers:
    """The optimizers that `save_optimizers` kept, for the grown network; rates and decays are those of `settings`.

    Raises:
        DataError: they were not kept, are torn, or belong to another network.
    """
    path = folder / OPTIMIZERS / checkpoint_name(0)
    restored: Optimizers = {}
    for name, content in load_checkpoint(path).state.items():
        number, _, head = name.partition(".")
        old, new = before.member(int(number)), after.member(int(number))
        optimizer = optimizer_for(new, _head(head, path), settings)
        options = [{key: value for key, value in group.items() if key != "params"} for group in optimizer.param_groups]
        try:
            state = optimizer_state(content)
            if head == "like":
                _grow_state(state["state"], old.trunk.tables, new.trunk.tables)
            optimizer.load_state_dict(state)
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            raise DataError(f"{path}: is of another network: {error!r}") from error
        for group, given in zip(optimizer.param_groups, options, strict=True):
            group.update(given)
        restored[name] = optimizer
    return restored


def _head(name: str, path: Path) -> Head:
    for head in HEADS:
        if head == name:
            return head
    raise DataError(f"{path}: holds state of an unknown head {name!r}")


def _grow_state(state: dict[Any, dict[str, Any]], old: EmbeddingTables, new: EmbeddingTables) -> None:
    """Moves what Adam remembers of each id to the id's row in the grown tables; new rows remember nothing. In place.

    The tables' parameters come first in the optimizer, one for each embedding size.
    """
    for place, size in enumerate(new.sizes):
        for name, value in state.get(place, {}).items():
            if isinstance(value, Tensor) and value.dim() == 2:
                state[place][name] = _moved(value, int(size), old, new)


def _moved(value: Tensor, size: int, old: EmbeddingTables, new: EmbeddingTables) -> Tensor:
    moved = value.new_zeros(len(new.sizes[str(size)].weight), value.shape[1])  # type: ignore[arg-type]
    for owner, (ids, own) in old.owners.items():
        if own == size:
            first, there = old.first_row(owner), new.first_row(owner)
            moved[there : there + ids - 1] = value[first : first + ids - 1]
    return moved
