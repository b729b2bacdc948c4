"""A store that is away: the answer is still a full, valid list, and says what it had to do without."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from benchmarks.support.away import Away
from data_exchange_center.candidates import merged_scores
from data_exchange_center.errors import StoreError, StoreUnavailable
from online.pipeline.context import Part, RequestContext
from online.pipeline.query import Answer, Query
from online.pipeline.recommend import recommend
from online.stores.ports import Stores
from tests.unit.online.conftest import Chain


def away(store: Any, error: Exception, *methods: str) -> Any:
    """The store, of which some methods fail."""
    return Away(store, error, *methods)


GONE = StoreUnavailable("gone")
BREAK: dict[Part, Callable[[Stores], Stores]] = {
    "user_store": lambda stores: replace(stores, users=away(stores.users, GONE, "read")),
    "item_index": lambda stores: replace(stores, items=away(stores.items, GONE, "search")),
    "user_features": lambda stores: replace(stores, features=away(stores.features, GONE, "user")),
    "item_features": lambda stores: replace(stores, features=away(stores.features, GONE, "items")),
    "scorer": lambda stores: replace(stores, scorer=away(stores.scorer, GONE, "score")),
}


def ask(chain: Chain, stores: Stores, budget: float = 5.0, **query: Any) -> tuple[Answer, list[Part]]:
    context = RequestContext(chain.view, "test", budget)
    user = query.pop("user_id", chain.release.table("users")["user_id"][0].as_py())
    return recommend(context, stores, Query(user_id=user, **query), chain.policy), context.degraded


def valid(answer: Answer, size: int) -> None:
    assert len(answer.item_ids) == len(set(answer.item_ids)) == size
    assert np.isfinite(answer.score).all()
    assert np.isfinite(answer.like).all()
    assert (np.diff(answer.score) <= 0).all()


@pytest.mark.parametrize("part", BREAK)
@pytest.mark.parametrize("explain", [False, True])
def test_one_store_away_is_named_and_the_list_is_full(int_chain: Chain, part: Part, explain: bool) -> None:
    answer, degraded = ask(int_chain, BREAK[part](int_chain.stores), size=30, explain=explain)
    valid(answer, 30)
    assert degraded == [part]


@pytest.mark.parametrize("part", ["user_store", "user_features", "item_features"])
def test_what_the_release_holds_itself_costs_no_quality(int_chain: Chain, part: Part) -> None:
    whole, _ = ask(int_chain, int_chain.stores, size=30)
    without, _ = ask(int_chain, BREAK[part](int_chain.stores), size=30)
    assert without.item_ids == whole.item_ids
    assert without.score == pytest.approx(whole.score)


def test_everything_away_still_answers(int_chain: Chain) -> None:
    stores = int_chain.stores
    for broken in BREAK.values():
        stores = broken(stores)
    stores = replace(stores, features=away(int_chain.stores.features, GONE, "user", "items"))
    answer, degraded = ask(int_chain, stores, size=40)
    valid(answer, 40)
    assert set(degraded) == set(BREAK)


def test_a_store_that_breaks_its_contract_counts_as_away(int_chain: Chain) -> None:
    stores = replace(int_chain.stores, scorer=away(int_chain.stores.scorer, StoreError("odd answer"), "score"))
    answer, degraded = ask(int_chain, stores, size=10)
    valid(answer, 10)
    assert degraded == ["scorer"]


@pytest.mark.parametrize("output", ["score_logit", "like_logit"])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_model_that_answers_no_numbers_counts_as_away(
    int_chain: Chain, monkeypatch: pytest.MonkeyPatch, output: str, value: float
) -> None:
    scorer = int_chain.stores.scorer
    score = scorer.score

    def broken(*arguments: Any) -> dict[str, np.ndarray]:
        outputs = {name: values.copy() for name, values in score(*arguments).items()}
        outputs[output][3] = value
        return outputs

    monkeypatch.setattr(scorer, "score", broken)
    answer = int_chain.client.post("/ml/rec", json={"userid": 1, "size": 40, "explain": True})
    assert answer.status_code == 200
    assert answer.get_json()["degraded"] == ["scorer"]


def test_a_used_up_budget_asks_no_store(int_chain: Chain) -> None:
    answer, degraded = ask(int_chain, int_chain.stores, budget=0.0, size=10)
    valid(answer, 10)
    assert set(degraded) == {"user_store", "item_index", "user_features", "scorer"}


def test_no_channel_left_means_popular_items(int_chain: Chain) -> None:
    stores = BREAK["item_index"](int_chain.stores)
    answer, degraded = ask(int_chain, stores, size=10, channels=frozenset({"vector"}))
    valid(answer, 10)
    assert degraded == ["item_index", "recall"]


def test_without_the_scorer_the_merged_order_decides(int_chain: Chain) -> None:
    answer, _ = ask(int_chain, BREAK["scorer"](int_chain.stores), size=90, explain=True)
    assert answer.explanation is not None
    inputs = answer.explanation.inputs
    weights = int_chain.view.recall.weights
    merged = merged_scores(inputs, weights)
    found = np.array(["fill" not in channels for channels in answer.explanation.channels])
    assert (np.diff(merged[found]) <= 1e-5).all()


FAILING: dict[Part, tuple[str, str]] = {
    "user_store": ("users", "read"),
    "item_index": ("items", "search"),
    "user_features": ("features", "user"),
    "item_features": ("features", "items"),
    "scorer": ("scorer", "score"),
    "recall": ("items", "search"),
}


def counted(chain: Chain, part: Part) -> float:
    text = chain.client.get("/metrics").get_data(as_text=True)
    found = [line for line in text.splitlines() if line.startswith(f'marquee_degraded_total{{part="{part}"}}')]
    return float(found[0].split()[1]) if found else 0.0


@pytest.mark.parametrize("part", FAILING)
def test_every_rung_is_answered_with_200_told_and_counted(
    int_chain: Chain, monkeypatch: pytest.MonkeyPatch, part: Part
) -> None:
    port, method = FAILING[part]
    before = counted(int_chain, part)
    monkeypatch.setattr(getattr(int_chain.stores, port), method, getattr(Away(None, GONE, method), method))
    body: dict[str, Any] = {"userid": int_chain.view.tables.any_user(), "size": 5}
    if part == "recall":
        body["channels"] = ["vector"]
    answer = int_chain.client.post("/ml/rec", json=body)
    assert answer.status_code == 200
    assert len(answer.get_json()["item_list"]) == 5
    assert part in answer.get_json()["degraded"]
    assert counted(int_chain, part) == before + 1


def test_events_are_refused_when_they_cannot_be_kept(int_chain: Chain, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(int_chain.stores.users, "append_events", Away(None, GONE, "append_events").append_events)
    own = {"event_id": "lost", "userid": 1, "itemid": 1, "event": "click", "timestamp": 1}
    answer = int_chain.client.post("/ml/events", json={"events": [own]})
    assert answer.status_code == 503
    assert answer.get_json()["error"]["code"] == "store_unavailable"
    monkeypatch.undo()
    assert int_chain.client.post("/ml/events", json={"events": [own]}).get_json()["accepted"] == 1
