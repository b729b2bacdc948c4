"""The pure parts of the pipeline, one by one."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_exchange_center.errors import ReleaseError, StoreError, StoreUnavailable
from data_exchange_center.input_blocks import input_blocks, pack_inputs
from data_exchange_center.recall_scores import top_rows
from online.pipeline.assemble import assemble, take
from online.pipeline.context import RequestContext
from online.pipeline.filters import eligible_items, rows_of
from online.pipeline.query import Query
from online.pipeline.recall import ChannelScores, find_candidates, first_eligible, taste_of
from online.pipeline.recommend import warm_up
from online.pipeline.release_view import load_view, view_of
from online.pipeline.since_release import unknown_user
from online.pipeline.visitor import moment, read_visitor
from online.stores.ports import FeatureRows, Filters
from tests.factories import SNAPSHOT, make_release, make_settings
from tests.unit.online.conftest import Chain


@given(st.lists(st.booleans(), max_size=300), st.integers(0, 40), st.integers(0, 2**32 - 1))
def test_first_eligible_is_the_head_of_the_eligible_order(flags: list[bool], count: int, seed: int) -> None:
    eligible = np.array(flags, bool)
    order = np.random.default_rng(seed).permutation(len(flags)).astype(np.int32)
    assert first_eligible(order, eligible, count).tolist() == [row for row in order.tolist() if eligible[row]][:count]


def test_first_eligible_looks_beyond_its_first_step() -> None:
    eligible = np.zeros(10_000, bool)
    eligible[[9_998, 9_999]] = True
    assert first_eligible(np.arange(10_000, dtype=np.int32), eligible, 5).tolist() == [9_998, 9_999]


def test_rows_of_passes_over_unknown_ids(int_chain: Chain) -> None:
    ids = int_chain.view.item_ids.tolist()
    assert rows_of(int_chain.view, [ids[3], 10**12, ids[0]]).tolist() == [3, 0]


def test_no_filter_bars_only_the_unwanted(int_chain: Chain) -> None:
    eligible = eligible_items(int_chain.view, np.array([3, 3, 5], np.int32), Filters())
    assert np.flatnonzero(~eligible).tolist() == [3, 5]


def test_an_item_without_a_year_is_in_no_range(int_chain: Chain) -> None:
    view = int_chain.view
    years = view.years.copy()
    years[0] = 0
    changed: Any = type(view)(**{**view.__dict__, "years": years})
    assert not eligible_items(changed, np.empty(0, np.int32), Filters(year_from=0))[0]
    assert eligible_items(changed, np.empty(0, np.int32), Filters())[0]


@pytest.mark.parametrize(
    ("now", "clock", "last_event", "expected"),
    [
        (5, "wall", 100, 5),
        (0, "user_last", 100, 0),
        (None, "wall", 100, 1_700_000_000),
        (None, "user_last", 100, 101),
        (None, "user_last", 0, SNAPSHOT),
    ],
)
def test_the_clock_setting_says_what_now_is(now: int | None, clock: Any, last_event: int, expected: int) -> None:
    assert moment(now, last_event, clock, 1_700_000_000.9, SNAPSHOT) == expected


def test_channel_scores_are_the_scores_defined_once(chain: Chain) -> None:
    view = chain.view
    rows = np.arange(0, view.item_count, 3, dtype=np.int32)
    for user in chain.release.table("users")["user_id"].to_pylist()[:5]:
        profile = view.tables.profile(user)
        assert profile is not None
        expected = view.recall.scores(taste_of(profile), rows)
        own = ChannelScores(view, taste_of(profile))
        for name, values in own.with_affinity(rows, own.of(rows)).items():
            assert values == pytest.approx(expected[name], abs=1e-6), name


def test_a_newcomer_without_likes_has_no_personal_scores(int_chain: Chain) -> None:
    scores = ChannelScores(int_chain.view, taste_of(unknown_user(1)))
    rows = np.arange(5, dtype=np.int32)
    found = scores.of(rows)
    assert not found["recall_vector"].any()
    assert not found["recall_item"].any()
    assert not found["recall_term"].any()
    assert top_rows(found["recall_popularity"], np.ones(5, bool), 1).dtype == np.int32


def features(chain: Chain, count: int) -> tuple[FeatureRows, FeatureRows, dict[str, np.ndarray]]:
    view = chain.view
    user = view.tables.user_features(chain.release.table("users")["user_id"][0].as_py())
    items = view.tables.item_features(view.item_ids[:count].tolist())
    names = [feature.name for feature in view.spec.of("candidate")]
    return user, items, {name: np.zeros(count, np.float32) for name in names}


def test_assembled_inputs_have_the_declared_form(chain: Chain) -> None:
    user, items, candidates = features(chain, 7)
    inputs = assemble(chain.view, user_id(chain), chain.view.item_ids[:7], 5, user, items, candidates)
    assert set(inputs) == {feature.name for feature in chain.view.spec.inputs}
    for feature in chain.view.spec.inputs:
        rows = 1 if feature.entity in ("user", "context") else 7
        assert inputs[feature.name].shape == ((rows, feature.length) if feature.is_list else (rows,)), feature.name
    outputs = chain.stores.scorer.score(chain.release.id, inputs, 5.0)
    assert outputs["score"].shape == (7,)


def test_rows_that_are_kept_side_by_side_enter_packed_graphs_as_they_are(chain: Chain) -> None:
    types = (chain.view.user_type, chain.view.item_type)
    view = replace(chain.view, blocks=input_blocks(chain.view.spec, types))
    single, _, candidates = features(chain, 7)
    user = chain.stores.features.user(chain.release.id, user_id(chain), 5.0)
    items = chain.stores.features.items(chain.release.id, view.item_ids[:7])
    inputs = assemble(view, user_id(chain), view.item_ids[:7], 5, user, items, candidates)
    by_name = assemble(chain.view, user_id(chain), view.item_ids[:7], 5, single, items, candidates)
    for name, expected in pack_inputs(view.blocks, by_name).items():
        assert inputs[name].dtype == expected.dtype and np.array_equal(inputs[name], expected), name
    kept = [block for block in view.blocks if block.entity in ("user", "item") and not block.is_key]
    rows = {"user": user, "item": items}
    assert kept and all(inputs[block.name] is rows[block.entity].matrices[block.dtype][1] for block in kept)


def test_terms_are_found_alike_in_the_release_and_in_the_index(chain: Chain) -> None:
    view, searched = chain.view, 0
    for user in chain.release.table("users")["user_id"].to_pylist()[:20]:
        context, query = RequestContext(view, "terms", 5.0), Query(user_id=user, channels=frozenset({"term"}))
        visitor = read_visitor(context, chain.stores.users, chain.policy, query)
        eligible = eligible_items(view, visitor.unwanted, query.filters)
        one, other = (
            find_candidates(context, chain.stores.items, visitor, query, eligible, 30, 20, terms_from_index=way)
            for way in (False, True)
        )
        assert np.array_equal(one.rows, other.rows)
        assert len(one.hits) == len(other.hits) == bool(visitor.profile.terms)
        for hits, expected in zip(one.hits, other.hits, strict=True):
            searched += len(hits.rows)
            assert hits.channel == expected.channel and np.allclose(hits.scores, expected.scores, rtol=1e-5)
            assert set(hits.rows.tolist()) == set(expected.rows.tolist())  # scores that are alike may change places
    assert searched


def user_id(chain: Chain) -> Any:
    return chain.release.table("users")["user_id"][0].as_py()


def test_a_feature_that_was_not_delivered_is_named(int_chain: Chain) -> None:
    user, items, candidates = features(int_chain, 3)
    del items.columns["year"]
    with pytest.raises(StoreError, match="'year' was not delivered"):
        assemble(int_chain.view, user_id(int_chain), int_chain.view.item_ids[:3], 5, user, items, candidates)


def test_take_keeps_user_and_context(int_chain: Chain) -> None:
    user, items, candidates = features(int_chain, 5)
    inputs = assemble(int_chain.view, user_id(int_chain), int_chain.view.item_ids[:5], 5, user, items, candidates)
    taken = take(inputs, int_chain.view, np.array([4, 1]))
    assert taken["item_id"].tolist() == int_chain.view.item_ids[[4, 1]].tolist()
    assert taken["now"].shape == (1,)


def test_the_tables_say_what_the_stores_say(chain: Chain) -> None:
    view, release = chain.view, chain.release.id
    items = view.item_ids[:10].tolist()
    unknown: Any = 10**9 if view.user_type == "int64" else "nobody"
    pairs = [
        *(
            (view.tables.user_features(user), chain.stores.features.user(release, user, 5.0))
            for user in (user_id(chain), unknown)
        ),
        (view.tables.item_features(items), chain.stores.features.items(release, items)),
    ]
    for own, stored in pairs:
        assert own.timestamps.tolist() == stored.timestamps.tolist()
        assert set(own.columns) == set(stored.columns)
        for name, values in own.columns.items():
            assert values.tolist() == stored.columns[name].tolist(), name
    read = chain.stores.users.read(chain.settings.scene, release, user_id(chain), 5.0).profile
    own_profile = view.tables.profile(user_id(chain))
    assert read is not None
    assert own_profile is not None
    for name in read.__dataclass_fields__:
        assert np.array_equal(getattr(read, name), getattr(own_profile, name)), name


def test_the_tables_know_no_stranger(int_chain: Chain) -> None:
    assert int_chain.view.tables.profile(10**12) is None


def test_a_budget_is_shared_and_ends(int_chain: Chain) -> None:
    context = RequestContext(int_chain.view, "x", 10.0)
    assert 0 < context.timeout("scorer") <= 5.0
    context.started -= 9.0
    assert 0 < context.timeout("scorer") <= 1.0
    context.started -= 2.0
    with pytest.raises(StoreUnavailable, match="budget of 10000 ms"):
        context.timeout("scorer")


@pytest.mark.parametrize(
    "file", ["model/model.onnx", "recall/item_vectors.npy", "tables/items.parquet", "feature_spec.yaml"]
)
@pytest.mark.parametrize("harm", ["missing", "altered", "cut"])
def test_a_release_with_a_broken_file_is_refused_by_name(tmp_path: Any, file: str, harm: str) -> None:
    settings = make_settings(tmp_path)
    release = make_release(tmp_path, users=5, items=8, settings=settings)
    path = release.path / file
    if harm == "missing":
        path.unlink()
    else:
        content = path.read_bytes()
        path.write_bytes(content[:-1] if harm == "cut" else content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(ReleaseError, match=file):
        load_view(settings, release.id)


def test_a_release_of_another_scene_is_refused(tmp_path: Any) -> None:
    settings = make_settings(tmp_path)
    release = make_release(tmp_path, users=5, items=8, settings=settings)
    other = settings.with_values(**{"features.spec": "criteo"})
    with pytest.raises(ReleaseError, match="of scene 'movielens'"):
        load_view(other, release.id)


def test_stores_that_hold_another_feature_spec_are_refused(int_chain: Chain, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(int_chain.stores.features, "fingerprint", lambda release: "0" * 64)
    with pytest.raises(ReleaseError, match="feature store holds feature spec 000000000000"):
        warm_up(view_of(int_chain.release), int_chain.stores, int_chain.policy)
