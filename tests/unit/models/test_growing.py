"""Growing embeddings: which id owns which row, when, and that a checkpoint changes nothing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from data_exchange_center.errors import DataError, SettingsError
from data_exchange_center.vocabulary import FIRST, PADDING, UNKNOWN
from offline.models.growing import Counts, GrowingIds, GrowthPolicy
from offline.models.initializers import Initializer
from offline.models.row_table import RowTable
from offline.training.sparse_optimizers import SparseAdamW

INT64 = st.integers(-(2**63), 2**63 - 1)


def made(policy: GrowthPolicy | None = None, *, limit: int = 5000, width: int = 4) -> tuple[RowTable, GrowingIds]:
    """A table of two rows with one growing map `ad`."""
    table = RowTable(FIRST, width, limit=limit)
    return table, GrowingIds(table, {"ad": policy or GrowthPolicy()})


def rows(growing: GrowingIds, *ids: int) -> list[int]:
    return growing.rows("ad", torch.tensor(ids, dtype=torch.int64)).tolist()


def step(table: RowTable, growing: GrowingIds, optimizer: SparseAdamW, ids: torch.Tensor) -> None:
    """One training step whose loss pulls every looked-up row towards one."""
    optimizer.zero_grad()
    (table(growing.rows("ad", ids)) - 1).square().sum().backward()
    optimizer.step()
    growing.tick("step")


def test_an_id_gets_its_row_on_first_sight_and_keeps_it() -> None:
    _, growing = made()
    assert rows(growing, 7, -(2**63), 7, 0, 2**63 - 1) == [2, 3, 2, 4, 5]
    assert rows(growing, 2**63 - 1, 0) == [5, 4]


@settings(deadline=None, max_examples=60)
@given(st.lists(st.lists(INT64 | st.integers(-3, 3), max_size=60), max_size=6), st.integers(1, 4))
def test_rows_are_those_of_a_plain_dictionary(batches: list[list[int]], admit_after: int) -> None:
    _, growing = made(GrowthPolicy(admit_after=admit_after))
    sightings: dict[int, int] = {}
    owned: dict[int, int] = {}
    for batch in batches:
        expected = []
        for one in batch:
            sightings[one] = sightings.get(one, 0) + 1
            if one not in owned and sightings[one] >= admit_after:
                owned[one] = FIRST + len(owned)
            expected.append(owned.get(one, UNKNOWN))
        assert rows(growing, *batch) == expected
    growing.eval()
    assert rows(growing, *sightings) == [owned.get(one, UNKNOWN) for one in sightings]


def test_many_ids_survive_the_growth_of_the_index() -> None:
    ids = torch.from_numpy(np.random.default_rng(0).permutation(np.arange(-100_000, 100_000)))
    _, growing = made(limit=300_000)
    first = torch.cat([growing.rows("ad", part) for part in ids.split(7001)])
    assert first.equal(torch.arange(FIRST, FIRST + len(ids)))
    assert growing.rows("ad", ids).equal(first)


def test_an_id_shares_unknown_until_it_was_seen_often_enough() -> None:
    table, growing = made(GrowthPolicy(admit_after=3))
    assert rows(growing, 5, 5, 6) == [UNKNOWN] * 3
    assert table.rows == FIRST
    assert rows(growing, 6, 5, 5) == [UNKNOWN, 2, 2]


def test_evaluation_counts_nothing() -> None:
    _, growing = made(GrowthPolicy(admit_after=2))
    growing.eval()
    assert rows(growing, 5, 5, 5) == [UNKNOWN] * 3
    growing.train()
    assert rows(growing, 5) == [UNKNOWN]


def test_padding_is_row_zero_and_never_an_id() -> None:
    _, growing = made(GrowthPolicy(padding=0))
    assert rows(growing, 0, 9, 0) == [PADDING, 2, PADDING]
    assert growing.counts("ad").known == 1


def test_ids_unseen_for_too_long_lose_their_rows_which_begin_anew() -> None:
    table, growing = made(GrowthPolicy(evict_after=2))
    optimizer = SparseAdamW([table], lr=0.1)
    step(table, growing, optimizer, torch.tensor([1, 2]))
    old = table.weight[3].clone()
    evicted = []
    for _ in range(3):
        optimizer.zero_grad()
        rows(growing, 1)
        evicted.append(growing.tick("step"))
    assert sum(evicted) == 1
    assert growing.counts("ad") == Counts(known=1, rows=1, admitted=2, evicted=1)
    assert rows(growing, 8, 9) == [3, 4]
    assert not table.weight[3].equal(old)
    assert table.companions["steps"][3] == 0 and (table.companions["exp_avg"][3] == 0).all()


def test_candidates_that_never_came_back_are_forgotten_too() -> None:
    _, growing = made(GrowthPolicy(admit_after=2, evict_after=1, unit="epoch"))
    rows(growing, *range(100))
    growing.tick("epoch")
    growing.tick("epoch")
    assert growing.counts("ad").known == 0


def test_steps_do_not_age_what_counts_epochs() -> None:
    _, growing = made(GrowthPolicy(evict_after=1, unit="epoch"))
    rows(growing, 1)
    assert [growing.tick("step") for _ in range(20)] == [0] * 20
    assert growing.counts("ad").rows == 1


def test_a_full_table_answers_unknown_and_counts_it() -> None:
    _, growing = made(limit=FIRST + 2)
    assert rows(growing, 1, 2, 3, 4, 3) == [2, 3, UNKNOWN, UNKNOWN, UNKNOWN]
    assert growing.counts("ad").refused == 3


def test_two_maps_share_a_table_but_not_rows() -> None:
    table = RowTable(4, 2, limit=100)
    growing = GrowingIds(table, {"ad": GrowthPolicy(), "site": GrowthPolicy(admit_after=2)}, {"site": 3})
    assert growing.rows("ad", torch.tensor([5, 6])).tolist() == [4, 5]
    assert growing.rows("site", torch.tensor([5, 5, 6])).tolist() == [3, 6, 3]


def test_the_frozen_table_answers_as_the_growing_one(tmp_path: Path) -> None:
    table, growing = made(GrowthPolicy(admit_after=2))
    ids = torch.tensor([9, 9, -4, 9, -4, 77])
    rows(growing, *ids.tolist())
    vocabulary, weight = growing.frozen("ad")
    table.eval()
    growing.eval()
    assert vocabulary.tokens == (9, -4)
    encoded = torch.tensor([vocabulary.encode(int(one)) for one in ids])
    assert weight[encoded].equal(table(growing.rows("ad", ids)))
    vocabulary.save(tmp_path)
    assert vocabulary.load(tmp_path, "ad") == vocabulary


def test_a_restored_table_goes_on_to_the_last_bit(tmp_path: Path) -> None:
    policy = GrowthPolicy(admit_after=2, evict_after=3)
    batches = [
        torch.from_numpy(np.random.default_rng(number).zipf(1.5, 200) + 40 * number).clamp(max=10_000)
        for number in range(24)
    ]
    table, growing = made(policy)
    optimizer = SparseAdamW([table], lr=0.05, weight_decay=0.1)
    for batch in batches[:12]:
        step(table, growing, optimizer, batch)
    assert growing.counts("ad").evicted > 0
    save_file({**{f"t.{k}": v for k, v in table.state_dict().items()}, **growing.state_dict()}, tmp_path / "a")
    save_file(optimizer.state_dict()["state"][0], tmp_path / "o")

    again, regrown = made(policy)
    content = load_file(tmp_path / "a")
    again.load_state_dict({k[2:]: v for k, v in content.items() if k.startswith("t.")})
    regrown.load_state_dict({k: v for k, v in content.items() if not k.startswith("t.")})
    reoptimizer = SparseAdamW([again], lr=0.05, weight_decay=0.1)
    reoptimizer.load_state_dict({**optimizer.state_dict(), "state": {0: load_file(tmp_path / "o")}})
    for batch in batches[12:]:
        step(table, growing, optimizer, batch)
        step(again, regrown, reoptimizer, batch)
    assert again.weight.equal(table.weight)
    assert regrown.counts("ad") == growing.counts("ad")
    for name, tensor in growing.state_dict().items():
        assert regrown.state_dict()[name].equal(tensor), name


def test_a_table_that_cannot_hold_what_was_saved_says_so() -> None:
    table, _ = made()
    with pytest.raises(DataError, match="cannot hold"):
        RowTable(FIRST, 4, limit=FIRST).load_state_dict({"weight": torch.zeros(9, 4)})
    with pytest.raises(DataError, match="no weight"):
        table.load_state_dict({})


@pytest.mark.parametrize("name", ["truncated_normal", "normal", "uniform", "zeros"])
def test_fresh_rows_begin_as_the_initializer_says(name: str) -> None:
    filled = torch.full((4000, 5), 9.0)
    Initializer(name, 0.1, zero_columns=1).fill(filled, torch.Generator().manual_seed(0))
    assert (filled[:, 4] == 0).all()
    bound = {"truncated_normal": 0.2, "normal": 1.0, "uniform": 0.1, "zeros": 0.0}[name]
    deviation = {"truncated_normal": 0.088, "normal": 0.1, "uniform": 0.0577, "zeros": 0.0}[name]
    assert filled[:, :4].abs().max() <= bound
    assert float(filled[:, :4].std()) == pytest.approx(deviation, abs=0.002)


def test_an_unknown_initializer_names_the_known_ones() -> None:
    with pytest.raises(SettingsError, match="truncated_normal"):
        Initializer("xavier")


def test_a_policy_that_makes_no_sense_is_refused() -> None:
    with pytest.raises(SettingsError, match="admit_after"):
        GrowthPolicy(admit_after=0)
