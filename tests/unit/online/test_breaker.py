"""A store that fails is left alone, tried once in a while, and asked again as soon as it answers."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from data_exchange_center.errors import StoreError, StoreUnavailable
from online.pipeline.breaker import FAILURES, Breaker
from online.pipeline.context import SHARES, RequestContext, make_breakers
from online.pipeline.query import Query
from online.pipeline.recommend import recommend
from online.stores.ports import Stores
from tests.unit.online.conftest import Chain, make_chain


class Clock:
    """A clock that is set by hand."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def opened() -> list[str]:
    return []


@pytest.fixture
def breaker(clock: Clock, opened: list[str]) -> Breaker:
    return Breaker("x", failures=3, first=1.0, longest=4.0, opened=lambda: opened.append("x"), clock=clock)


def fail(breaker: Breaker, times: int) -> None:
    for _ in range(times):
        breaker.failed()


def test_failures_in_a_row_open_it_and_successes_between_them_do_not(breaker: Breaker) -> None:
    for _ in range(5):
        fail(breaker, 2)
        breaker.succeeded()
    assert breaker.closed
    fail(breaker, 3)
    assert not breaker.closed
    assert not breaker.admits()


def test_one_caller_at_a_time_tries_an_open_one(breaker: Breaker, clock: Clock) -> None:
    fail(breaker, 3)
    clock.now += 1.0
    assert [breaker.admits() for _ in range(4)] == [True, False, False, False]


def test_success_of_the_try_closes_it(breaker: Breaker, clock: Clock) -> None:
    fail(breaker, 3)
    clock.now += 1.0
    assert breaker.admits()
    breaker.succeeded()
    assert breaker.closed
    assert all(breaker.admits() for _ in range(4))


def test_pauses_grow_to_a_limit_and_start_over_after_success(breaker: Breaker, clock: Clock) -> None:
    fail(breaker, 3)
    pauses = []
    for _ in range(5):
        began = clock.now
        while not breaker.admits():
            clock.now += 0.25
        pauses.append(clock.now - began)
        breaker.failed()
    assert pauses == [1.0, 2.0, 4.0, 4.0, 4.0]
    breaker.succeeded()
    fail(breaker, 3)
    clock.now += 1.0
    assert breaker.admits()


def test_a_try_that_never_reports_does_not_keep_it_open_for_good(breaker: Breaker, clock: Clock) -> None:
    fail(breaker, 3)
    clock.now += 1.0
    assert breaker.admits()
    clock.now += 1.0
    assert breaker.admits()


def test_opening_is_told_once(breaker: Breaker, opened: list[str]) -> None:
    fail(breaker, 8)
    assert opened == ["x"]


def test_threads_get_one_try_between_them(clock: Clock) -> None:
    breaker = Breaker("x", failures=1, first=1.0, clock=clock)
    breaker.failed()
    clock.now += 1.0
    admitted: list[bool] = []
    threads = [threading.Thread(target=lambda: admitted.append(breaker.admits())) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(admitted) == 1


@pytest.fixture(scope="module")
def chain(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chain]:
    yield from make_chain(tmp_path_factory.mktemp("chain"), users=10, items=40)


def context_of(chain: Chain, budget: float = 5.0) -> RequestContext:
    return RequestContext(chain.view, "x", budget, breakers=make_breakers())


def unavailable(timeout: float) -> Any:
    raise StoreUnavailable("gone")


def test_an_open_breaker_answers_for_the_store(chain: Chain) -> None:
    context = context_of(chain)
    for _ in range(FAILURES):
        with pytest.raises(StoreUnavailable, match="gone"):
            context.ask("scorer", unavailable)
    with pytest.raises(StoreUnavailable, match="left alone"):
        context.ask("scorer", unavailable)
    assert context.ask("item_index", lambda timeout: timeout) <= SHARES["item_index"] * 5.0


def test_an_answer_out_of_contract_is_no_outage(chain: Chain) -> None:
    context = context_of(chain)

    def wrong(timeout: float) -> Any:
        raise StoreError("nonsense")

    for _ in range(3 * FAILURES):
        with pytest.raises(StoreError, match="nonsense"):
            context.ask("scorer", wrong)


def test_a_request_that_is_late_itself_does_not_blame_the_store(chain: Chain) -> None:
    context = context_of(chain, budget=5.0)
    context.started -= 4.0  # one second left, less than the scorer's share
    for _ in range(3 * FAILURES):
        with pytest.raises(StoreUnavailable, match="gone"):
            context.ask("scorer", unavailable)


class Counted:
    """A store whose calls are counted and fail when told to."""

    def __init__(self, store: Any) -> None:
        self._store, self.away, self.calls = store, False, 0

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._store, name)
        if name == "blocked_copy":  # asks no store
            return method

        def call(*arguments: Any) -> Any:
            self.calls += 1
            if self.away:
                raise StoreUnavailable("gone")
            return method(*arguments)

        return call


@pytest.mark.parametrize(("port", "part"), [("users", "user_store"), ("items", "item_index"), ("scorer", "scorer")])
def test_requests_leave_a_dead_store_alone_and_find_it_again(chain: Chain, port: str, part: str) -> None:
    counted: Any = Counted(getattr(chain.stores, port))
    stores: Stores = replace(chain.stores, **{port: counted})
    user = chain.view.tables.any_user()
    assert user is not None
    breakers = make_breakers()

    def ask() -> list[str]:
        context = RequestContext(chain.view, "x", 5.0, breakers=breakers)
        answer = recommend(context, stores, Query(user, size=5), chain.policy)
        assert len(answer.item_ids) == 5
        return [*context.degraded]

    assert ask() == []
    counted.away, counted.calls = True, 0
    assert [ask() for _ in range(20)] == [[part]] * 20
    assert counted.calls == FAILURES
    counted.away = False
    breakers[part]._try_at = 0.0  # type: ignore[index]  # the next try is due
    assert [ask() for _ in range(3)] == [[], [], []]
