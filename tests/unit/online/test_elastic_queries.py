"""What is sent to Elasticsearch and how its answers are read, without a server."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from online.stores.elastic_queries import (
    EXACT_ITEMS,
    index_body,
    inner_product,
    lifted,
    read_hits,
    search_body,
    strength_field,
)
from online.stores.ports import Filters, TermQuery, VectorQuery

VECTOR = VectorQuery(np.array([1.0, 2.0], np.float32), 10)
TERM = TermQuery(("Sci-Fi", "War"), np.array([0.5, 0.25], np.float32), 10)
NOTHING = np.empty(0, np.int32)


@given(st.floats(-1e6, 1e6, width=32))
def test_a_score_becomes_the_inner_product_again(product: float) -> None:
    score = np.float32(product + 1 if product >= 0 else 1 / (1 - product))
    assert inner_product(np.array([score]))[0] == pytest.approx(product, rel=1e-5, abs=1e-5)


@given(st.text(min_size=1))
def test_a_term_of_any_spelling_is_one_field_of_its_own(term: str) -> None:
    name = strength_field(term, parent=False)
    assert name and "." not in name and "*" not in name and name.isascii()
    assert strength_field(term + "x") != strength_field(term)


def test_hits_are_ordered_by_score_and_then_by_row() -> None:
    answered = [(7, 2.0), (3, 2.0), (9, 3.0)]
    hits = read_hits(TERM, [{"fields": {"item_row": [row]}, "_score": score} for row, score in answered])
    assert hits.rows.tolist() == [9, 3, 7]
    assert hits.scores.dtype == np.float32
    assert hits.rows.dtype == np.int32


def test_filters_and_exclusions_act_inside_the_graph_search() -> None:
    filters = Filters(terms=("War",), year_from=1980)
    knn = search_body(VECTOR, np.array([4, 5], np.int32), filters, 1.0)["query"]["knn"]
    assert knn["filter"]["bool"]["must_not"] == [{"terms": {"item_row": [4, 5]}}]
    assert knn["filter"]["bool"]["filter"] == [{"terms": {"terms": ["War"]}}, {"range": {"year": {"gte": 1980}}}]
    assert knn["num_candidates"] >= knn["k"]


def test_a_search_without_conditions_sends_none() -> None:
    assert "filter" not in search_body(VECTOR, NOTHING, Filters(), 1.0)["query"]["knn"]
    query = search_body(TERM, NOTHING, Filters(), 1.0)["query"]["function_score"]
    assert query["query"] == {"bool": {"filter": [{"terms": {"recalled_by": ["Sci-Fi", "War"]}}]}}


def test_every_term_of_a_query_weighs_its_own_column() -> None:
    functions = search_body(TERM, NOTHING, Filters(), 1.0)["query"]["function_score"]["functions"]
    weighed = {entry["field_value_factor"]["field"]: entry["field_value_factor"]["factor"] for entry in functions}
    assert weighed == {"strength.Sci-Fi": 0.5, "strength.War": 0.25}


def test_the_mapping_is_strict_and_wide_enough_for_every_term() -> None:
    terms = [f"term {number}" for number in range(3000)]
    body = index_body(terms, 8, 100, {"release": "r"})
    assert body["mappings"]["dynamic"] == "strict"
    assert len(body["mappings"]["properties"]["strength"]["properties"]) == 3000
    assert body["settings"]["mapping.total_fields.limit"] > 3000


@pytest.mark.parametrize(("items", "kind"), [(EXACT_ITEMS, "flat"), (EXACT_ITEMS + 1, "hnsw")])
def test_only_large_catalogs_have_a_graph(items: int, kind: str) -> None:
    vector = index_body(["War"], 8, items, {})["mappings"]["properties"]["vector"]
    assert vector["index_options"]["type"] == kind and vector["dims"] == 9


@given(
    arrays(np.float32, (7, 5), elements=st.floats(-100, 100, width=32)),
    arrays(np.float32, 5, elements=st.floats(-10, 10, width=32)),
)
def test_lifted_vectors_are_equally_long_and_keep_their_products(vectors: np.ndarray, query: np.ndarray) -> None:
    made = lifted(vectors)
    lengths = np.linalg.norm(made, axis=1)
    assert lengths == pytest.approx(np.full(7, lengths.max()), rel=1e-5)
    assert made @ np.append(query, np.float32(0)) == pytest.approx(vectors @ query, rel=1e-5, abs=1e-4)
