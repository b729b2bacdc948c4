"""A network that has grown says the same of known ids, learns on as if it had not, and new ids begin as unknown ones."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from data_exchange_center.errors import DataError
from data_exchange_center.vocabulary import Vocabulary
from offline.models.ranker import Ranker
from offline.rank.fitting import FitData, Optimizers, Plan, learn, places_of, train_fit
from offline.rank.grown_ranker import grown_ranker, restored_optimizers, save_optimizers, with_new_tokens
from offline.training.loop import predict_choose, predict_like
from tests.unit.models.tiny_scene import tiny_encoder
from tests.unit.rank.test_fitting import SETTINGS, tiny_data

PLAN = Plan(1, 1, {"like": (1.1, 0.1)})
NEW = {"user_id": Vocabulary("user_id", (3, 9, 8), 3), "item_id": Vocabulary("item_id", (), 0)}
NEW["genres"] = Vocabulary("genres", ("Drama", "Opera"), 2)


def fitted() -> tuple[FitData, Ranker, Optimizers]:
    data, optimizers = tiny_data(), Optimizers()
    ranker, _ = train_fit(SETTINGS, tiny_encoder(), data, PLAN, optimizers=optimizers)
    return data, ranker, optimizers


def test_new_tokens_follow_the_known_ones() -> None:
    grown = with_new_tokens(tiny_encoder(), NEW).vocabularies
    assert grown["user_id"].tokens == (1, 2, 3, 4, 5, 9, 8) and grown["user_id"].capacity == 7
    assert grown["genres"].tokens == ("Comedy", "Drama", "War", "Opera")
    assert grown["item_id"] == tiny_encoder().vocabularies["item_id"]


def test_known_ids_score_as_before_and_new_ones_as_unknown() -> None:
    data, before, _ = fitted()
    after = grown_ranker(before, with_new_tokens(tiny_encoder(), NEW)).eval()
    everything = torch.arange(len(data.rows.labels))
    assert (
        predict_like(after.member(0), data.rows, everything) == predict_like(before.member(0), data.rows, everything)
    ).all()
    users = torch.arange(20)
    assert (
        predict_choose(after.member(0), data.lists[0], users) == predict_choose(before.member(0), data.lists[0], users)
    ).all()
    table = after.member(0).trunk.tables.of("user_id")
    assert len(table) == 1 + 7 and torch.equal(table[-2:], table[:1].expand(2, -1))
    assert torch.equal(after.calibration, before.calibration)


def test_learning_goes_on_as_if_nothing_had_grown(tmp_path: Path) -> None:
    data, before, optimizers = fitted()
    save_optimizers(tmp_path, optimizers)
    encoder = with_new_tokens(tiny_encoder(), NEW)
    after = grown_ranker(before, encoder)
    restored = restored_optimizers(tmp_path, before, after, SETTINGS.rank)
    for ranker, own in ((after, restored), (before, optimizers)):
        for optimizer in own.values():
            for group in optimizer.param_groups:
                group["lr"] = 0.003  # a schedule has left its last value in the old ones
        learn(SETTINGS, ranker, replace(data, config=ranker.config), PLAN, places_of(data.lists), own)
    for owner in before.member(0).trunk.tables.owners:
        old, new = (ranker.member(0).trunk.tables.of(owner) for ranker in (before, after))
        assert torch.equal(new[: len(old)], old), owner
    heads = [ranker.member(0).heads.state_dict() for ranker in (before, after)]
    assert all(torch.equal(heads[0][name], heads[1][name]) for name in heads[0])


def test_rates_are_those_of_the_settings_and_state_is_kept(tmp_path: Path) -> None:
    _, before, optimizers = fitted()
    save_optimizers(tmp_path, optimizers)
    slower = SETTINGS.with_values(**{"rank.learning_rate": 1e-4}).rank
    restored = restored_optimizers(tmp_path, before, before, slower)
    assert set(restored) == {"0.like", "0.choose"}
    assert all(group["lr"] == 1e-4 for one in restored.values() for group in one.param_groups)
    old, new = (one["0.like"].state_dict()["state"] for one in (optimizers, restored))
    assert all(
        torch.equal(new[key]["exp_avg"], old[key]["exp_avg"]) and new[key]["step"] == old[key]["step"] for key in old
    )


def test_state_of_another_network_is_refused(tmp_path: Path) -> None:
    _, before, optimizers = fitted()
    with pytest.raises(DataError, match="optimizers"):
        restored_optimizers(tmp_path, before, before, SETTINGS.rank)
    save_optimizers(tmp_path, {"0.choose": optimizers["0.like"]})
    with pytest.raises(DataError, match="another network"):
        restored_optimizers(tmp_path, before, before, SETTINGS.rank)
