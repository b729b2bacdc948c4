"""Both heads learn what is there to learn, epochs come from validation, and a seed fixes every number."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pytest
import torch
from safetensors.torch import save_file

from data_exchange_center.errors import DataError
from data_exchange_center.settings import Settings
from offline.models.layers import Sides
from offline.models.trunk import Trunk
from offline.rank import s1_feature_engi
from offline.rank.fitting import FitData, find_plan, new_ranker, train_fit
from offline.rank.number_tables import Lists
from offline.rank.s3_evaluate import judge, permutation_importance
from offline.training.dataset import FIT, JUDGE, VALIDATE, ChooseLists, LikeRows
from offline.training.loop import Epoch, best_epoch, list_loss, predict_choose
from offline.training.metrics import click_metrics, finite
from offline.training.optimizers import FLOOR, rate_at
from tests.unit.models.tiny_scene import tiny_config, tiny_encoder

ROWS, USERS, ITEMS, LIST = 1600, 300, 9, 12
SETTINGS = Settings().with_values(
    **{"rank.epochs": 4, "rank.batch_size": 64, "rank.learning_rate": 0.01, "rank.threads": 1}
)


def tiny_data() -> FitData:
    """Rows liked when the item's popularity is high, lists chosen when the recall score is high, with noise."""
    encoder = tiny_encoder()
    trunk = Trunk(encoder.spec, encoder.rows)
    random = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=random)

    def integers(high: int, *shape: int) -> torch.Tensor:
        return torch.randint(0, high, shape, generator=random, dtype=torch.int32)

    def user_inputs(count: int) -> dict[str, torch.Tensor]:
        return {
            "encoded.user_id": integers(7, count),
            "encoded.history": integers(9, count, 4),
            "raw.history_labels": integers(2, count, 4).float(),
            "encoded.age": integers(3, count),
        }

    def item_inputs(count: int) -> dict[str, torch.Tensor]:
        return {
            "encoded.item_id": integers(9, count),
            "encoded.genres": integers(5, count, 3),
            "encoded.text": normal(count, 2),
        }

    like_columns, choose_columns = (trunk.number_columns(head) for head in ("like", "choose"))
    users = sum(trunk.sides[name] == "user" for name in like_columns)
    rows = LikeRows(
        user_inputs(ROWS) | item_inputs(ROWS),
        Sides(normal(ROWS, users), normal(ROWS, len(like_columns) - users)),
        torch.zeros(ROWS),
        integers(20, ROWS).long(),
        torch.tensor([FIT, FIT, FIT, VALIDATE, JUDGE], dtype=torch.uint8).repeat(ROWS // 5),
    )
    popularity = rows.numbers.item[:, like_columns.index("popularity") - users]
    rows = replace(rows, labels=(popularity + 0.5 * normal(ROWS) > 0).float())
    numbers = Sides(normal(USERS, users), normal(USERS, LIST, len(choose_columns) - users))
    recall = numbers.item[..., choose_columns.index("recall") - users]
    labels = torch.zeros(USERS, LIST, dtype=torch.uint8)
    lists = ChooseLists(
        user_inputs(USERS),
        item_inputs(ITEMS),
        integers(ITEMS, USERS, LIST).long(),
        numbers,
        labels.scatter(1, (recall + 0.3 * normal(USERS, LIST)).topk(2, 1).indices, 1),
    )
    return FitData(rows, (lists,), trunk.means, trunk.deviations, tiny_config(encoder))


@pytest.fixture(scope="module")
def data() -> FitData:
    return tiny_data()


def test_both_heads_learn_what_decides(data: FitData) -> None:
    encoder = tiny_encoder()
    plan, curves, learned = find_plan(SETTINGS, encoder, data)
    ranker, _ = train_fit(SETTINGS, encoder, data, plan, learned)
    metrics = click_metrics(*judge(ranker, data.rows))
    assert metrics["auc"] > 0.85 and metrics["rows"] == ROWS // 5
    assert plan.like_epochs == best_epoch(curves["like"])
    scores = predict_choose(ranker.member(0), data.lists[0], torch.arange(USERS))
    chosen = data.lists[0].labels.numpy().astype(bool)
    assert scores[chosen].mean() > scores[~chosen].mean() + 1
    assert permutation_importance(ranker, data.rows, 0)[0]["feature"] == "popularity"


def test_the_same_seed_gives_the_same_network(data: FitData) -> None:
    encoder = tiny_encoder()
    plan, _, learned = find_plan(SETTINGS, encoder, data)
    first, second = (train_fit(SETTINGS, encoder, data, plan, one)[0].state_dict() for one in (None, learned))
    assert all(torch.equal(first[name], second[name]) for name in first)
    other = train_fit(SETTINGS.with_values(seed=1), encoder, data, plan)[0].state_dict()
    assert any(not torch.equal(first[name], other[name]) for name in first)


def test_test_rows_decide_nothing(data: FitData) -> None:
    encoder = tiny_encoder()
    labels = data.rows.labels.clone()
    labels[data.rows.rows(JUDGE)] = 1 - labels[data.rows.rows(JUDGE)]
    turned = replace(data, rows=replace(data.rows, labels=labels))
    plan, other = (find_plan(SETTINGS, encoder, one)[0] for one in (data, turned))
    assert plan == other
    first, second = (train_fit(SETTINGS, encoder, one, plan)[0].state_dict() for one in (data, turned))
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_a_log_of_positives_only_leaves_like_to_choose(data: FitData) -> None:
    encoder = tiny_encoder()
    alone = replace(data, config=replace(data.config, heads=("choose",)))
    plan, curves, _ = find_plan(SETTINGS, encoder, alone)
    assert plan.like_epochs == 0 and curves["like"] == [] and plan.choose_epochs > 0


@pytest.mark.parametrize("lists", [1, 3])
def test_the_least_log_still_has_lists_to_watch(data: FitData, lists: int) -> None:
    group = data.lists[0]
    few = ChooseLists(
        {name: tensor[:lists] for name, tensor in group.user_inputs.items()},
        group.item_inputs,
        group.candidates[:lists],
        Sides(group.numbers.user[:lists], group.numbers.item[:lists]),
        group.labels[:lists],
    )
    plan, curves, _ = find_plan(SETTINGS, tiny_encoder(), replace(data, lists=(few,)))
    assert plan.choose_epochs >= 1
    assert all(np.isfinite(epoch.validation["ndcg50"]) for epoch in curves["choose"])


def test_a_log_in_which_nobody_chose_anything_new_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    known = SimpleNamespace(
        users=pa.table({"user_id": [1]}),
        items=pa.table({"item_id": [1]}),
        later=SimpleNamespace(positives=SimpleNamespace(users=pa.array([0]), items=pa.array([0]))),
    )
    nothing = Lists(known.users, known.items, np.empty((0, 0), np.int64), {}, np.empty((0, 0), np.uint8))
    for name, made in {
        "load_known_rows": known,
        "recall_candidates": None,
        "read_table": None,
        "lists_of": nothing,
    }.items():
        monkeypatch.setattr(s1_feature_engi, name, lambda *_, made=made: made)
    with pytest.raises(DataError, match="after the cut 'early' no user chose an item that was new to them"):
        s1_feature_engi._lists(SETTINGS, tiny_encoder().spec, "early")


def test_test_rows_of_one_class_leave_auc_out(data: FitData) -> None:
    rows = data.rows
    ones = torch.where(rows.parts == JUDGE, torch.ones_like(rows.labels), rows.labels)
    only = replace(data, rows=LikeRows(rows.inputs, rows.numbers, ones, rows.users, rows.parts))
    ranker = new_ranker(tiny_encoder(), only, 0)
    labels, probabilities, users = judge(ranker, only.rows)
    assert finite(click_metrics(labels, probabilities, users))["auc"] is None
    assert permutation_importance(ranker, only.rows, 0) == []


def test_the_list_loss_is_the_mean_log_share_of_the_chosen() -> None:
    logits = torch.tensor([[1.0, 2.0, 0.0, 9.0]])
    labels = torch.tensor([[1.0, 1.0, 0.0, 0.0]])
    mask = torch.tensor([[True, True, True, False]])
    share = torch.softmax(logits[0, :3], 0)
    assert list_loss(logits, labels, mask).item() == pytest.approx(-(share[:2].log().mean()).item(), rel=1e-5)


def test_sampled_lists_keep_everything_chosen_and_no_padding(data: FitData) -> None:
    lists = data.lists[0]
    padded = replace(
        lists, candidates=lists.candidates.masked_fill(lists.labels == 0, -1).index_fill(1, torch.arange(6), 3)
    )
    batch = padded.batch(torch.arange(8), unchosen=6)
    assert batch.labels.sum().item() == padded.labels[:8].sum().item()
    assert batch.mask.sum(1).min().item() == 6


def test_rows_and_lists_come_back_from_disk(data: FitData, tmp_path: Path) -> None:
    data.rows.save(tmp_path / "rows.safetensors")
    data.lists[0].save(tmp_path / "lists.safetensors")
    rows, lists = LikeRows.load(tmp_path / "rows.safetensors"), ChooseLists.load(tmp_path / "lists.safetensors")
    assert torch.equal(rows.numbers.item, data.rows.numbers.item) and torch.equal(rows.parts, data.rows.parts)
    assert torch.equal(lists.candidates, data.lists[0].candidates) and set(lists.user_inputs) == set(
        data.lists[0].user_inputs
    )
    with pytest.raises(DataError, match="run offline/rank/s1_feature_engi.py first"):
        LikeRows.load(tmp_path / "absent.safetensors")


def test_a_broken_file_of_rows_is_named(tmp_path: Path) -> None:
    save_file({"labels": torch.zeros(3)}, tmp_path / "rows.safetensors")
    content = (tmp_path / "rows.safetensors").read_bytes()
    (tmp_path / "rows.safetensors").write_bytes(content[:-4])
    with pytest.raises(DataError, match=r"rows\.safetensors"):
        LikeRows.load(tmp_path / "rows.safetensors")


def test_no_test_row_is_an_error_that_says_so(data: FitData) -> None:
    ranker = new_ranker(tiny_encoder(), data, 0).eval()
    nothing = replace(data.rows, parts=torch.zeros_like(data.rows.parts))
    with pytest.raises(DataError, match="no test row"):
        judge(ranker, nothing)


def test_the_best_epoch_has_the_smallest_validation_loss() -> None:
    epochs = [Epoch(number, 0.0, {"loss": loss}) for number, loss in enumerate((0.6, 0.5, 0.55), 1)]
    assert best_epoch(epochs) == 2


def test_the_learning_rate_warms_up_and_falls_to_its_floor() -> None:
    rates = [rate_at(step, 1000) for step in range(1001)]
    assert np.argmax(rates) < 100 and rates[0] < 0.05 and rates[-1] == pytest.approx(FLOOR)
