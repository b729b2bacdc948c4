"""The steps from tables to arrays: string ids, positives only, every cut; and the bars on MovieLens 100K."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from data_exchange_center import columns as c
from data_exchange_center.candidates import DEFAULT_WEIGHTS
from data_exchange_center.dataset_info import DatasetInfo, Labels, write_dataset_info
from data_exchange_center.errors import DataError
from data_exchange_center.recall_scores import RecallArrays, tastes
from data_exchange_center.settings import Settings
from data_exchange_center.tables import USER_PROFILES
from data_exchange_center.workspace import Workspace, read_array, read_json, read_table, write_table
from offline.preprocess.s1_data_split import split_data
from offline.preprocess.split import split_interactions
from offline.recall import s1_term_recall, s5_recall_evaluation
from offline.recall.all_channels import fit_recall
from offline.recall.assembly import PROFILES
from offline.recall.candidates_for_ranking import recall_candidates, recall_scores_for
from offline.recall.known_rows import load_known_rows
from offline.recall.s1_term_recall import fit_term_channel
from tests.factories import make_settings
from tests.unit.recall.world import make_world

FAST = {"recall.dimension": 4, "recall.epochs": 1, "recall.candidates": 40, "split.online_events": 4, "rank.threads": 1}


def write_log(settings: Settings, *, labels: Labels, bare: bool = False) -> None:
    """A small world as canonical tables with string ids, split."""
    world = make_world(users=60, items=48, length=16, held_out=1)
    workspace = Workspace(settings)
    users = pa.table({c.USER_ID: [f"u{row}" for row in range(60)], "gender": world.users["gender"]})
    items = world.items.set_column(0, c.ITEM_ID, pa.array([f"i{row}" for row in range(48)]))
    events = world.events
    positive = np.ones(len(events), np.int8) if labels == "positives_only" else events.labels
    interactions = pa.table(
        {
            c.USER_ID: [f"u{row}" for row in events.users],
            c.ITEM_ID: [f"i{row}" for row in events.items],
            c.TIMESTAMP: events.timestamps,
            c.POSITION: np.arange(len(events)),
            c.RATING: pa.nulls(len(events), pa.float32()),
            c.LABEL: positive,
        }
    )
    write_table(workspace.tables / "users.parquet", users.select([c.USER_ID]) if bare else users)
    write_table(workspace.tables / "items.parquet", items.select([c.ITEM_ID]) if bare else items)
    write_table(workspace.split / "interactions.parquet", split_interactions(interactions, settings.split))
    info = DatasetInfo(
        name="tiny", source="", fingerprint="", labels=labels, users=60, items=48, interactions=len(events),
        positive_rate=float(positive.mean()), first_timestamp=0, last_timestamp=1, rows_read=len(events), dropped=0,
        findings=(), user_id_type="string", item_id_type="string", user_attributes=(), item_attributes=(),
        has_user_attributes=not bare, has_terms=not bare,
    )  # fmt: skip
    write_dataset_info(workspace, info)


@pytest.fixture(scope="module")
def fitted(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    settings = make_settings(tmp_path_factory.mktemp("recall"), **FAST)
    write_log(settings, labels="ratings")
    for cut in ("train", "offline"):
        fit_recall(settings, cut)
    return settings


def test_the_evaluation_has_the_promised_shape(fitted: Settings) -> None:
    found = read_json(Workspace(fitted).recall("offline") / "evaluation.json")
    assert set(found["recall"]) == {"vector", "item", "term", "popularity"}
    for channel in found["recall"].values():
        assert {"r50", "r100", "r200", "ndcg50", "coverage", "gain", "only_here"} <= set(channel)
    assert {"r200", "found", "size"} <= set(found["union"])
    assert {"r50", "ndcg50"} <= set(found["popularity"])
    assert found["judged_on"] == "all"


def test_merge_weights_come_from_the_cut_before(fitted: Settings) -> None:
    workspace = Workspace(fitted)
    learned = read_json(workspace.recall("train") / "parts" / "merge.json")["weights"]
    assert read_json(workspace.recall("offline") / "recall.json")["merge"] == learned
    assert read_json(workspace.recall("train") / "recall.json")["merge"] == DEFAULT_WEIGHTS


def test_no_weight_is_learned_from_rows_held_out_for_the_online_traffic(fitted: Settings) -> None:
    assert not (Workspace(fitted).recall("offline") / "parts" / "merge.json").exists()


def test_profiles_hold_the_known_rows_in_order(fitted: Settings) -> None:
    profiles = USER_PROFILES.validate(read_table(Workspace(fitted).recall("train") / PROFILES))
    events = load_known_rows(fitted, "train").events
    assert profiles[c.USER_ID].to_pylist() == [f"u{row}" for row in range(60)]
    assert profiles["history"].to_pylist()[3] == events.items[events.users == 3].tolist()
    assert profiles["history_timestamps"].to_pylist()[3] == sorted(events.timestamps[events.users == 3].tolist())
    assert profiles["last_timestamp"].to_pylist()[3] == events.timestamps[events.users == 3].max()


def test_candidates_are_ranked_new_and_scored(fitted: Settings) -> None:
    table = recall_candidates(fitted, "train", 20)
    events = load_known_rows(fitted, "train").events
    met = {(f"u{user}", f"i{item}") for user, item in zip(events.users, events.items, strict=True)}
    pairs = list(zip(table[c.USER_ID].to_pylist(), table[c.ITEM_ID].to_pylist(), strict=True))
    assert not met & set(pairs)
    assert len(set(pairs)) == len(pairs) == 60 * 20
    assert table["rank"].to_pylist()[:21] == [*range(20), 0]
    scores = recall_scores_for(
        fitted, "train", table.select([c.USER_ID, c.ITEM_ID]).take(list(range(len(pairs)))[::-1])
    )
    for name in ("recall_vector", "recall_item", "recall_term", "recall_popularity"):
        assert table[name].type == pa.float32()
        np.testing.assert_array_equal(scores[name].to_numpy()[::-1], table[name].to_numpy())


def test_candidates_of_chosen_users_come_in_the_order_asked(fitted: Settings) -> None:
    table = recall_candidates(fitted, "train", 3, pa.array(["u9", "u2"]))
    assert table[c.USER_ID].to_pylist() == ["u9"] * 3 + ["u2"] * 3


def test_scores_are_those_of_the_release(fitted: Settings) -> None:
    folder = Workspace(fitted).recall("offline")
    arrays = RecallArrays.load(folder)
    users = tastes(read_table(folder / PROFILES), read_array(folder / "user_vectors.npy"))
    pairs = pa.table({c.USER_ID: ["u5", "u5"], c.ITEM_ID: ["i7", "i40"]})
    table = recall_scores_for(fitted, "offline", pairs)
    for name, values in arrays.scores(users[5], np.array([7, 40], np.int32)).items():
        assert table[name].to_pylist() == values.tolist()


def test_no_pairs_give_an_empty_table(fitted: Settings) -> None:
    pairs = pa.table({c.USER_ID: pa.array([], pa.string()), c.ITEM_ID: pa.array([], pa.string())})
    assert recall_scores_for(fitted, "train", pairs).num_rows == 0


def test_an_unknown_id_is_named(fitted: Settings) -> None:
    with pytest.raises(DataError, match="'i999'"):
        recall_scores_for(fitted, "train", pa.table({c.USER_ID: ["u1"], c.ITEM_ID: ["i999"]}))


def test_a_cut_without_later_rows_is_assembled_and_says_that_nothing_judges_it(tmp_path: Path) -> None:
    settings = make_settings(tmp_path, **FAST, **{"split.holdout": "none"})
    write_log(settings, labels="positives_only", bare=True)
    result = fit_recall(settings, "all")
    assert result["users"] == 0
    assert "nothing to judge" in result["note"]
    assert recall_candidates(settings, "all", 10).num_rows == 600


def test_the_term_step_says_when_it_has_nothing_to_do(tmp_path: Path) -> None:
    settings = make_settings(tmp_path, **FAST)
    write_log(settings, labels="positives_only", bare=True)
    assert "no terms" in fit_term_channel(settings, "train")["note"]


@pytest.mark.parametrize("labels", ["impressions", "outcome"])
def test_what_was_shown_and_left_alone_is_no_history(tmp_path: Path, labels: Labels) -> None:
    settings = make_settings(tmp_path, **FAST)
    write_log(settings, labels="ratings")
    rated = load_known_rows(settings, "train").events
    write_log(settings, labels=labels)
    chosen = load_known_rows(settings, "train").events
    assert 0 < len(chosen) == (rated.labels > 0).sum() < len(rated)


def test_a_log_of_impressions_without_a_single_click_is_served_by_popularity(tmp_path: Path) -> None:
    settings = make_settings(tmp_path, **FAST)
    write_log(settings, labels="impressions")
    split = Workspace(settings).split / "interactions.parquet"
    rows = read_table(split)
    none = pa.array(np.zeros(rows.num_rows, np.int8))
    write_table(split, rows.set_column(rows.column_names.index(c.LABEL), c.LABEL, none))
    assert fit_recall(settings, "train")["users"] == 0
    table = recall_candidates(settings, "train", 5, pa.array(["u3", "u4"]))
    assert table.num_rows == 10
    assert np.isfinite(table["recall_vector"].to_numpy()).all()


def test_a_step_run_too_early_names_what_is_missing(tmp_path: Path) -> None:
    settings = make_settings(tmp_path, **FAST)
    write_log(settings, labels="ratings")
    with pytest.raises(DataError, match=r"item_vectors\.npy: not there"):
        s5_recall_evaluation.evaluate_recall(settings, "train")


def test_a_step_as_a_program_ends_with_one_json_object(
    fitted: Settings, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MARQUEE_SPLIT__ONLINE_EVENTS", "4")
    with pytest.raises(SystemExit) as ended:
        s1_term_recall.main(["--cut", "train", "--store", fitted.data.store, "--dataset", "tiny", "--quiet"])
    assert ended.value.code == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["terms"] == 4


def test_recall_reaches_its_bars_on_movielens_100k(ml100k: Path, tmp_path: Path) -> None:
    settings = make_settings(tmp_path).with_values(**{"data.dataset": "ml-100k", "data.source": str(ml100k)})
    split_data(settings)
    found = fit_recall(settings, "offline")
    assert found["recall"]["vector"]["r50"] >= 0.46
    assert found["recall"]["item"]["r50"] >= 0.46
    assert found["union"]["r200"] >= 0.80
    assert found["popularity"]["r50"] == pytest.approx(0.257, abs=0.001)
    assert found["recall"]["term"]["only_here"] > 20
