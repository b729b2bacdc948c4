"""What every item index promises (online/stores/ports.py), against scores computed the slow way from the release."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from data_exchange_center import columns as c
from data_exchange_center.errors import StoreUnavailable
from data_exchange_center.recall_scores import RecallArrays
from data_exchange_center.release import Release
from online.stores.ports import Filters, Hits, ItemIndex, TermQuery, VectorQuery
from tests.factories import TERMS

T = 5.0  # seconds
NOBODY, ANY = np.empty(0, np.int32), Filters()
Query = VectorQuery | TermQuery


@pytest.fixture(scope="session")
def loaded(items: ItemIndex, releases: list[Release]) -> list[Release]:
    for release in releases:
        assert items.load(release) == release.table("items").num_rows
    return releases


def expected(release: Release, query: Query, exclude: np.ndarray, filters: Filters) -> np.ndarray:
    """float64 [items], -inf for what may not be a hit."""
    arrays = RecallArrays.open(release)
    if isinstance(query, VectorQuery):
        scores = np.asarray(arrays.vectors.item_vectors, np.float64) @ np.asarray(query.vector, np.float64)
    else:
        scores = np.full(arrays.item_count, -np.inf)
        for term, weight in zip(query.terms, query.weights.tolist(), strict=True):
            if term in arrays.terms:
                number = arrays.terms.index(term)
                part = slice(arrays.strength.indptr[number], arrays.strength.indptr[number + 1])
                rows = arrays.strength.indices[part]
                scores[rows] = np.where(np.isinf(scores[rows]), 0, scores[rows]) + weight * arrays.strength.values[part]
    table = release.table("items")
    for row, (terms, year) in enumerate(zip(table[c.TERMS].to_pylist(), table[c.YEAR].to_pylist(), strict=True)):
        in_years = (filters.year_from or 0) <= year <= (filters.year_to or 9999)
        if row in exclude or not in_years or (filters.terms and not set(terms) & set(filters.terms)):
            scores[row] = -np.inf
    return scores


def check(hits: Hits, query: Query, scores: np.ndarray) -> None:
    """The hits are the k best of `scores`, best first; which of nearly equal ones makes the cut is left open."""
    eligible = int(np.isfinite(scores).sum())
    assert hits.channel == query.channel
    assert hits.rows.dtype == np.int32
    assert hits.scores.dtype == np.float32
    assert len(hits.rows) == len(set(hits.rows.tolist())) == min(query.k, eligible)
    np.testing.assert_allclose(hits.scores, scores[hits.rows], rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(hits.scores, np.sort(scores)[::-1][: len(hits.rows)], rtol=1e-5, atol=1e-5)


def vector_query(seed: int, k: int, dimension: int = 10) -> VectorQuery:
    return VectorQuery(np.random.default_rng(seed).normal(size=dimension).astype(np.float32), k)


def term_query(seed: int, k: int) -> TermQuery:
    generator = np.random.default_rng(seed)
    chosen = tuple(generator.permutation(TERMS)[: generator.integers(1, 5)].tolist())
    return TermQuery(chosen, generator.random(len(chosen)).astype(np.float32) + np.float32(0.01), k)


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    seed=st.integers(0, 10_000),
    k=st.integers(1, 120),
    excluded=st.sets(st.integers(0, 89), max_size=60),
    terms=st.sets(st.sampled_from(TERMS), max_size=3),
    years=st.tuples(st.none() | st.integers(1930, 1965), st.none() | st.integers(1965, 1999)),
)
def test_hits_are_the_best_eligible_items_of_each_query(
    items: ItemIndex,
    loaded: list[Release],
    seed: int,
    k: int,
    excluded: set[int],
    terms: set[str],
    years: tuple[int | None, int | None],
) -> None:
    exclude = np.array(sorted(excluded), np.int32)
    filters = Filters(tuple(sorted(terms)), *years)
    queries: list[Query] = [vector_query(seed, k), term_query(seed, k)]
    answers = items.search(loaded[0].id, queries, exclude, filters, T)
    assert len(answers) == 2
    for query, hits in zip(queries, answers, strict=True):
        check(hits, query, expected(loaded[0], query, exclude, filters))


def test_equal_scores_come_in_the_order_of_their_rows(items: ItemIndex, loaded: list[Release]) -> None:
    """A vector of zeros makes every inner product equal."""
    (hits,) = items.search(loaded[0].id, [VectorQuery(np.zeros(10, np.float32), 90)], NOBODY, ANY, T)
    assert hits.rows.tolist() == list(range(90))


def test_answers_come_in_the_order_asked_under_their_own_names(items: ItemIndex, loaded: list[Release]) -> None:
    queries: list[Query] = [
        TermQuery(("Drama",), np.ones(1, np.float32), 5, "taste"),
        VectorQuery(np.ones(10, np.float32), 4, "newcomer"),
        VectorQuery(np.ones(10, np.float32), 3),
    ]
    answers = items.search(loaded[0].id, queries, NOBODY, ANY, T)
    assert [(hits.channel, len(hits.rows)) for hits in answers] == [("taste", 5), ("newcomer", 4), ("vector", 3)]
    assert answers[1].rows[:3].tolist() == answers[2].rows.tolist()


def test_releases_are_searched_each_by_itself(items: ItemIndex, loaded: list[Release]) -> None:
    query = vector_query(3, 20)
    for release in loaded:
        (hits,) = items.search(release.id, [query], NOBODY, ANY, T)
        check(hits, query, expected(release, query, NOBODY, ANY))


def test_nothing_to_search_with_finds_nothing(items: ItemIndex, loaded: list[Release]) -> None:
    queries: list[Query] = [
        VectorQuery(np.empty(0, np.float32), 10),
        TermQuery((), np.empty(0, np.float32), 10),
        TermQuery(("Unheard of",), np.ones(1, np.float32), 10),
    ]
    for hits in items.search(loaded[0].id, queries, NOBODY, ANY, T):
        assert len(hits.rows) == len(hits.scores) == 0


def test_no_queries_is_no_error(items: ItemIndex, loaded: list[Release]) -> None:
    assert items.search(loaded[0].id, [], NOBODY, ANY, T) == []


def test_a_filter_that_nothing_meets_leaves_nothing(items: ItemIndex, loaded: list[Release]) -> None:
    for filters in (Filters(("Unheard of",)), Filters((), 2050, None)):
        (hits,) = items.search(loaded[0].id, [vector_query(1, 10)], NOBODY, filters, T)
        assert len(hits.rows) == 0


def test_everything_excluded_leaves_nothing(items: ItemIndex, loaded: list[Release]) -> None:
    (hits,) = items.search(loaded[0].id, [vector_query(1, 10)], np.arange(90, dtype=np.int32), ANY, T)
    assert len(hits.rows) == 0


def test_loading_again_changes_nothing_and_counts_hold(items: ItemIndex, loaded: list[Release]) -> None:
    assert items.load(loaded[0]) == items.count(loaded[0].id) == 90
    assert items.releases() == sorted(release.id for release in loaded)
    assert items.count("never-there") == 0


def test_a_dropped_release_is_gone_and_the_others_are_not(items: ItemIndex, loaded: list[Release]) -> None:
    gone, stays = loaded[1], loaded[0]
    items.drop(gone.id)
    items.drop("never-there")
    assert items.count(gone.id) == 0
    with pytest.raises(StoreUnavailable):
        items.search(gone.id, [vector_query(1, 5)], NOBODY, ANY, T)
    assert len(items.search(stays.id, [vector_query(1, 5)], NOBODY, ANY, T)[0].rows) == 5
    items.load(gone)
    assert len(items.search(gone.id, [vector_query(1, 5)], NOBODY, ANY, T)[0].rows) == 5


def test_promoting_a_release_keeps_every_release_searchable(items: ItemIndex, loaded: list[Release]) -> None:
    items.promote(loaded[0])
    items.promote(loaded[1])
    for release in loaded:
        assert len(items.search(release.id, [vector_query(1, 5)], NOBODY, ANY, T)[0].rows) == 5


def test_a_release_that_was_never_loaded_is_unavailable(items: ItemIndex, loaded: list[Release]) -> None:
    with pytest.raises(StoreUnavailable):
        items.search("never-there", [vector_query(1, 5)], NOBODY, ANY, T)


def test_no_time_left_is_unavailable(items: ItemIndex, loaded: list[Release]) -> None:
    with pytest.raises(StoreUnavailable):
        items.search(loaded[0].id, [vector_query(1, 5)], NOBODY, ANY, 0.0)
    items.ping(T)
