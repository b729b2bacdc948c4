"""What the Elasticsearch adapter sends and how it reads the answers: pure functions, no connection.

One document an item:

    item_id    keyword   the id as text
    item_row   integer   the item's place in the release's items table; answers carry nothing else
    title      keyword   for people (not searchable)
    terms      keyword   what filters match on
    recalled_by  keyword  terms that the item has a strength in: what the term channel matches on
    strength.<term>  float  the item's strength in the term, one column a term, doc values only
    year       integer   absent when unknown: such an item is in no range
    popularity float     of the global segment, for people and dashboards
    vector     dense_vector  item side of the vector channel, inner product; one component longer (`lifted`)

The vector channel is a `knn` query inside of the search: the section of that name beside the query would be a phase, and a change
of threads, of its own. Small catalogs are compared whole, which is exact and costs less than a walk through a graph that visits
most of them anyway; larger ones have a graph (HNSW).

The term channel's score, the sum over matched terms of weight x strength, is a `function_score` over those columns: exact
in float32, where Lucene's feature fields keep nine bits, and without scripts. The index is sorted by `item_row`, so that
equal scores come in the order that the port promises.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from urllib.parse import quote

import numpy as np

from online.stores.ports import Filters, Hits, TermQuery, VectorQuery

# The graph search's breadth. At 3 a hit, the first 200 hits were .999 of the exact ones among 20,000 lifted vectors of the kind
# that the vector channel makes (as they are, without the lift: .80).
CANDIDATES_PER_HIT = 3
CANDIDATES_MIN = 100
# Items up to which the index has no graph. At 1,682 items a search of 300 hits took the server 1.7 ms of CPU without, 2.9 with one.
EXACT_ITEMS = 10_000
MAX_CANDIDATES = 10_000  # the server's own limit of num_candidates
FILTER_PATH = (
    "responses.status",
    "responses.timed_out",
    "responses.error.type",
    "responses.error.reason",
    "responses.error.root_cause.reason",
    "responses.hits.hits.fields.item_row",
    "responses.hits.hits._score",
)


def strength_field(term: str, *, parent: bool = True) -> str:
    """The column of a term's strengths; percent-encoded, since a dot in a field name opens an object."""
    return ("strength." if parent else "") + quote(term, safe="").replace(".", "%2E")


def index_body(terms: Sequence[str], dimension: int, items: int, meta: dict[str, Any]) -> dict[str, Any]:
    """Settings and strict mapping of a release's index.

    Args:
        terms: every term of the release.
        dimension: of the item vectors; 0 leaves the vector out.
        items: in the index.
        meta: kept in the mapping's `_meta`.
    """
    strengths = {strength_field(term, parent=False): {"type": "float", "index": False} for term in sorted(terms)}
    properties: dict[str, Any] = {
        "item_id": {"type": "keyword"},
        "item_row": {"type": "integer"},
        "title": {"type": "keyword", "index": False, "doc_values": False},
        "terms": {"type": "keyword"},
        "recalled_by": {"type": "keyword", "doc_values": False},
        "strength": {"properties": strengths},
        "year": {"type": "integer"},
        "popularity": {"type": "float", "index": False},
    }
    if dimension:
        properties["vector"] = {
            "type": "dense_vector",
            "dims": dimension + 1,
            "index": True,
            "similarity": "max_inner_product",
            "index_options": {"type": "flat" if items <= EXACT_ITEMS else "hnsw"},
        }
    return {
        "settings": {
            "number_of_shards": 1,
            "auto_expand_replicas": "0-1",
            "refresh_interval": "-1",
            "sort.field": "item_row",
            "sort.order": "asc",
            "mapping.total_fields.limit": len(strengths) + 100,
        },
        "mappings": {
            "dynamic": "strict",
            "_meta": meta,
            "_source": {"excludes": ["vector", "strength", "recalled_by"]},
            "properties": properties,
        },
    }


def lifted(vectors: np.ndarray) -> np.ndarray:
    """The vectors with one more component that makes all of them equally long.

    Inner products with a query that has 0 there stay what they are. The graph search needs it: where lengths differ, as they do
    with biases folded in, the longest items are everybody's neighbours and hide the others.

    Args:
        vectors: float32 [items, D].

    Returns:
        float32 [items, D + 1].

    Source: Bachrach et al., "Speeding Up the Xbox Recommender System Using a Euclidean Transformation for Inner-Product
    Spaces", RecSys 2014.
    """
    squares = np.square(vectors, dtype=np.float64).sum(axis=1)
    lift = np.sqrt(squares.max(initial=0.0) - squares)
    return np.column_stack((vectors, lift)).astype(np.float32)


def search_body(
    query: VectorQuery | TermQuery, exclude: np.ndarray, filters: Filters, timeout: float
) -> dict[str, Any]:
    """One search of the round trip; exclusions and filters act inside of it."""
    body: dict[str, Any] = {
        "size": query.k,
        "_source": False,
        "stored_fields": "_none_",
        "docvalue_fields": ["item_row"],
        "track_total_hits": False,
        "timeout": f"{max(1, round(timeout * 1000))}ms",
    }
    conditions = _conditions(exclude, filters)
    if isinstance(query, VectorQuery):
        knn: dict[str, Any] = {
            "field": "vector",
            # the lift takes no part in the product
            "query_vector": [*np.asarray(query.vector, np.float32).tolist(), 0.0],
            "k": query.k,
            "num_candidates": min(MAX_CANDIDATES, max(CANDIDATES_MIN, CANDIDATES_PER_HIT * query.k)),
        }
        if conditions:
            knn["filter"] = {"bool": conditions}
        return {**body, "query": {"knn": knn}}
    matched = {"terms": {"recalled_by": list(query.terms)}}
    return {
        **body,
        "query": {
            "function_score": {
                "query": {"bool": {**conditions, "filter": [matched, *conditions.get("filter", [])]}},
                "functions": [
                    {"field_value_factor": {"field": strength_field(term), "factor": float(weight), "missing": 0.0}}
                    for term, weight in zip(query.terms, query.weights, strict=True)
                ],
                "score_mode": "sum",
                "boost_mode": "replace",
            }
        },
    }


def _conditions(exclude: np.ndarray, filters: Filters) -> dict[str, list[dict[str, Any]]]:
    conditions: dict[str, list[dict[str, Any]]] = {}
    if len(exclude):
        conditions["must_not"] = [{"terms": {"item_row": np.asarray(exclude).tolist()}}]
    wanted: list[dict[str, Any]] = []
    if filters.terms:
        wanted.append({"terms": {"terms": list(filters.terms)}})
    years = {"gte": filters.year_from, "lte": filters.year_to}
    if bounds := {side: year for side, year in years.items() if year is not None}:
        wanted.append({"range": {"year": bounds}})
    if wanted:
        conditions["filter"] = wanted
    return conditions


def read_hits(query: VectorQuery | TermQuery, hits: Sequence[dict[str, Any]]) -> Hits:
    """Hits of one search, best first, ties by row; a vector query's scores are inner products again."""
    rows = np.array([hit["fields"]["item_row"][0] for hit in hits], np.int32)
    scores = np.array([hit["_score"] for hit in hits], np.float32)
    if isinstance(query, VectorQuery):
        scores = inner_product(scores)
    order = np.lexsort((rows, -scores))
    return Hits(query.channel, rows[order], scores[order])


def inner_product(score: np.ndarray) -> np.ndarray:
    """Undoes the server's mapping of an inner product s to a positive score: s + 1 for s >= 0, else 1 / (1 - s)."""
    score = np.asarray(score, np.float32)
    return np.where(score >= 1, score - 1, 1 - 1 / np.maximum(score, np.finfo(np.float32).tiny)).astype(np.float32)
