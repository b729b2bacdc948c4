"""What the factorization machine of one fit hands to the next: its parameters, and what their rows stand for.

Users and items are matched by id, attributes by name; what came since begins as in a new fit. Rows of the tables are places in the
users and items tables of a fit, so they may be others in the next one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from data_exchange_center.errors import DataError
from data_exchange_center.workspace import atomic_path, read_json, read_table, write_json, write_table
from offline.recall.vector_model import FactorizationMachine

WEIGHTS, IDS, TOKENS = "vector_model.safetensors", "vector_model_{}.parquet", "vector_model.json"


@dataclass(frozen=True)
class VectorStart:
    """A fitted model.

    Attributes:
        parameters: by name, as in FactorizationMachine; `known` says which items had known rows.
        users, items: ids, in the order of the rows. user_tokens, item_tokens: names of the attributes.
    """

    parameters: dict[str, Tensor]
    users: pa.Array
    items: pa.Array
    user_tokens: tuple[str, ...]
    item_tokens: tuple[str, ...]

    @torch.no_grad()
    def hand_over(self, model: FactorizationMachine, to: VectorStart) -> None:
        """Sets the parameters of a new model to this one's, where it has them.

        Args:
            to: says what the rows of the new model stand for; its parameters are not read.
        """
        users, items = _common(self.users, to.users), _common(self.items, to.items)
        known = self.parameters["known"][items[0]] > 0
        rated = tuple(rows[known.numpy()] for rows in items)
        user_tokens = _common(self.user_tokens, to.user_tokens)
        item_tokens = _common(self.item_tokens, to.item_tokens)
        rows = {
            "user_id.weight": users,
            "user_token": user_tokens,
            "item_id": rated,
            "item_bias": rated,
            "history_residual": rated,
            "item_token": item_tokens,
            "token_bias": item_tokens,
        }
        for name, parameter in model.named_parameters():
            if name in rows:
                old, new = rows[name]
                parameter[new] = self.parameters[name][old]
            else:
                parameter.copy_(self.parameters[name])

    def save(self, folder: Path) -> None:
        """Writes it into a folder of parts."""
        with atomic_path(folder / WEIGHTS) as temporary:
            save_file({name: tensor.detach().contiguous() for name, tensor in self.parameters.items()}, temporary)
        for name, ids in (("users", self.users), ("items", self.items)):
            write_table(folder / IDS.format(name), pa.table({"id": ids}))
        write_json(folder / TOKENS, {"users": list(self.user_tokens), "items": list(self.item_tokens)})

    @classmethod
    def load(cls, folder: Path) -> VectorStart:
        """Reads what `save` wrote; DataError names a file that is missing or broken."""
        tokens = read_json(folder / TOKENS)
        users, items = (read_table(folder / IDS.format(name))["id"].combine_chunks() for name in ("users", "items"))
        try:
            return cls(load_file(folder / WEIGHTS), users, items, tuple(tokens["users"]), tuple(tokens["items"]))
        except (OSError, SafetensorError, KeyError, TypeError) as error:
            raise DataError(f"{folder / WEIGHTS}: not the parameters of a vector channel: {error!r}") from error


def start_of(
    model: FactorizationMachine, users: pa.Array, items: pa.Array, names: Sequence[Sequence[str]]
) -> VectorStart:
    """What a fitted model hands over.

    Args:
        users, items: ids of its rows. names: of its users' and its items' attributes.
    """
    parameters = {name: tensor.detach() for name, tensor in model.named_parameters()} | {"known": model.known}
    return VectorStart(parameters, users, items, tuple(names[0]), tuple(names[1]))


def _common(before: pa.Array | Sequence[str], after: pa.Array | Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Places, before and after, of what both have."""
    old, new = (names if isinstance(names, pa.Array) else pa.array(names, pa.string()) for names in (before, after))
    if old.type != new.type:
        raise DataError(f"ids were {old.type} and are {new.type}; a channel cannot go on from the other's vectors")
    places = pc.index_in(new, value_set=old)
    there = np.flatnonzero(places.is_valid().to_numpy(zero_copy_only=False))
    return pc.drop_null(places).to_numpy().astype(np.int64), there
