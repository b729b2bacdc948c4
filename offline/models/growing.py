"""Embeddings that grow: any int64 id gets a row of the table when training has seen it often enough, and loses it when it is gone.

A vocabulary that is fitted once cannot hold tomorrow's ads. Here the map from id to row is learned along with the rows:

    admission   an id owns a row from its `admit_after`-th sighting on; until then it is UNK, which so learns what rare ids share
    eviction    an id that was not seen for more than `evict_after` ticks of the clock is forgotten; its row goes to the next
                new id, freshly initialised
    export      `tokens` and `frozen_rows` give the ids that own a row and the table for them, which is a vocabulary and a plain
                embedding: the exported graph knows nothing of growth

Evaluation and prediction only look: an id without a row is UNK, and nothing is counted. The same rows in the same order make the
same table, also when a checkpoint lies between.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from data_exchange_center.errors import DataError, SettingsError
from data_exchange_center.vocabulary import FIRST, PADDING, UNKNOWN, Vocabulary
from offline.models.id_map import SLOT, IdMap, RowPool
from offline.models.row_table import RowTable

Unit = Literal["step", "epoch"]


@dataclass(frozen=True)
class GrowthPolicy:
    """How one map grows.

    Attributes:
        admit_after: sightings before an id owns a row; every occurrence in a training batch is one.
        evict_after: ticks without a sighting after which an id is forgotten; 0: never.
        unit: what a tick is, an optimizer step or an epoch.
        padding: the id that stands for no element; None: every int64 is an id.
    """

    admit_after: int = 1
    evict_after: int = 0
    unit: Unit = "step"
    padding: int | None = None

    def __post_init__(self) -> None:
        if self.admit_after < 1 or self.evict_after < 0:
            raise SettingsError(f"admit_after must be at least 1 and evict_after at least 0: {self}", field="growth")


@dataclass
class Counts:
    """What happened so far: ids known, rows in use, ids admitted, evicted, and sightings that found the table full."""

    known: int
    rows: int
    admitted: int = 0
    evicted: int = 0
    refused: int = 0


class GrowingIds(nn.Module):
    """The maps of all features (or groups of features that share a table by name) whose rows lie in one table.

    Args:
        table: from its current end on, rows belong to the maps.
        policies: map's name -> policy.
        unknown: map's name -> the row that its ids share until they own one; UNKNOWN for maps it does not name.
    """

    def __init__(
        self, table: RowTable, policies: Mapping[str, GrowthPolicy], unknown: Mapping[str, int] | None = None
    ) -> None:
        super().__init__()
        self.__dict__["table"] = table  # the table's rows are its own to save
        self.policies, self.unknown = dict(policies), dict(unknown or {})
        self.pool = RowPool(table.rows, table.limit)
        self.maps = {
            name: IdMap(self.pool, policy.admit_after, policy.padding) for name, policy in self.policies.items()
        }
        self.clock: dict[Unit, int] = {"step": 0, "epoch": 0}
        self.totals = {name: Counts(0, 0) for name in self.policies}

    table: RowTable

    def rows(self, name: str, ids: Tensor) -> Tensor:
        """Rows of ids of one map, int64 of the ids' shape and device. In training, ids are counted and may come to own rows."""
        flat = ids.reshape(-1).cpu().numpy()
        if not self.training:
            rows = self.maps[name].find(flat)
        else:
            found = self.maps[name].learn(flat, self.clock[self.policies[name].unit])
            self.table.begin(torch.from_numpy(found.admitted))
            self.totals[name].admitted += len(found.admitted)
            self.totals[name].refused += found.full
            rows = found.rows
        shared = self.unknown.get(name, UNKNOWN)
        if shared != UNKNOWN:
            rows[rows == UNKNOWN] = shared
        return torch.from_numpy(rows).to(ids.device).view(ids.shape)

    def tick(self, unit: Unit) -> int:
        """One step or epoch has passed: forgets ids that are too old by it. Returns how many lost their row."""
        self.clock[unit] += 1
        evicted = 0
        for name, policy in self.policies.items():
            if policy.unit != unit or not policy.evict_after or self.clock[unit] % _sweep(policy.evict_after):
                continue
            gone = self.maps[name].forget(self.clock[unit] - policy.evict_after)
            self.totals[name].evicted += gone
            evicted += gone
        return evicted

    def counts(self, name: str) -> Counts:
        """What one map holds and has done."""
        total = self.totals[name]
        return Counts(
            len(self.maps[name]), total.admitted - total.evicted, total.admitted, total.evicted, total.refused
        )

    def frozen(self, name: str) -> tuple[Vocabulary, Tensor]:
        """The ids that own a row as a vocabulary, by row, and the table for its encoding.

        Returns:
            The vocabulary, and rows float32 [FIRST + tokens, width]: padding, what unknown ids share, one per token.
        """
        entries = self.maps[name].entries()
        entries = entries[entries["value"] >= FIRST]
        entries = entries[np.argsort(entries["value"])]
        tokens = tuple(entries["id"].tolist())
        rows = np.concatenate([[PADDING, self.unknown.get(name, UNKNOWN)], entries["value"]]).astype(np.int64)
        return Vocabulary(name, tokens, len(tokens)), self.table.weight[torch.from_numpy(rows)]

    def _save_to_state_dict(self, destination: dict[str, Tensor], prefix: str, keep_vars: bool) -> None:
        pool, clock = self.pool, self.clock
        destination[prefix + "pool"] = torch.tensor([pool.used, clock["step"], clock["epoch"]])
        destination[prefix + "free"] = torch.from_numpy(pool.free[: pool.counts[1]].copy())
        for name, one in self.maps.items():
            entries, total = one.entries(), self.totals[name]
            destination[f"{prefix}{name}.ids"] = torch.from_numpy(entries["id"].copy())
            destination[f"{prefix}{name}.values"] = torch.from_numpy(entries["value"].copy())
            destination[f"{prefix}{name}.seen"] = torch.from_numpy(entries["seen"].copy())
            destination[f"{prefix}{name}.totals"] = torch.tensor([total.admitted, total.evicted, total.refused])

    def _load_from_state_dict(self, state_dict: Mapping[str, Tensor], prefix: str, *rest: Any) -> None:
        try:
            used, step, epoch = state_dict[prefix + "pool"].tolist()
            free = state_dict[prefix + "free"].numpy()
            if used > self.pool.limit:
                raise DataError(f"{prefix}pool holds {used} rows, more than the table's limit {self.pool.limit}")
            self.pool.counts[:2] = used, len(free)
            self.pool.free[: len(free)] = free
            self.clock = {"step": step, "epoch": epoch}
            for name, one in self.maps.items():
                ids = state_dict[f"{prefix}{name}.ids"].numpy()
                entries = np.empty(len(ids), SLOT)
                entries["id"] = ids
                entries["value"] = state_dict[f"{prefix}{name}.values"].numpy()
                entries["seen"] = state_dict[f"{prefix}{name}.seen"].numpy()
                one.restore(entries)
                admitted, evicted, refused = state_dict[f"{prefix}{name}.totals"].tolist()
                self.totals[name] = Counts(0, 0, admitted, evicted, refused)
        except KeyError as error:
            raise DataError(f"the saved table lacks {error}") from error


def _sweep(evict_after: int) -> int:
    """Ticks between two looks at all ids: an id outlives its age by less than an eighth of it."""
    return max(1, evict_after // 8)
