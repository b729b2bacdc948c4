"""The requests of the parity check: real users, every kind of question, and over the run every item."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

from data_exchange_center import columns as c

Id = int | str

SIZES = (1, 5, 10, 20, 50)
LARGE = 500  # every LARGE_EVERY-th list asks for this many
LARGE_EVERY = 100
SCORE_EVERY = 5  # every so many requests one asks for the scores of given items
SCORED = 50
DAY = 86_400


@dataclass(frozen=True)
class ParityRequest:
    """One request: path, body, and what the body asks for."""

    path: str
    body: dict[str, Any] = field(repr=False)

    @property
    def user(self) -> Id:
        user: Id = self.body["userid"]
        return user

    @property
    def now(self) -> int | None:
        return self.body.get("now")


def parity_requests(
    users: Sequence[Id], items: pa.Table, last_timestamps: dict[Id, int], count: int, seed: int
) -> Iterator[ParityRequest]:
    """`count` requests. Users come in random order, each once before any comes again.

    Args:
        items: the release's items table.
        last_timestamps: user -> unix seconds of the last known event.
    """
    generator = np.random.default_rng(seed)
    order = generator.permutation(len(users))
    ids: list[Id] = items[c.ITEM_ID].to_pylist()
    terms = (
        sorted({term for entry in items[c.TERMS].to_pylist() for term in entry})
        if c.TERMS in items.column_names
        else []
    )
    years = [year for year in items[c.YEAR].to_pylist() if year] if c.YEAR in items.column_names else []
    shuffled = generator.permutation(len(ids))
    at = 0
    for number in range(count):
        user = users[order[number % len(users)]]
        body: dict[str, Any] = {"userid": user, "explain": True}
        if generator.random() < 0.3:
            body["now"] = last_timestamps[user] + int(generator.integers(1, 400 * DAY))
        if number % SCORE_EVERY == SCORE_EVERY - 1:
            places = np.take(shuffled, range(at, at + min(SCORED, len(ids))), mode="wrap")
            at += SCORED
            yield ParityRequest("/ml/score", body | {"itemids": [ids[place] for place in places]})
            continue
        body["size"] = LARGE if number % LARGE_EVERY == 0 else int(generator.choice(SIZES))
        filters = _filters(generator, terms, years)
        if filters:
            body["filters"] = filters
        if generator.random() < 0.2:
            body["exclude"] = [ids[place] for place in generator.integers(0, len(ids), 10)]
        if generator.random() < 0.1:
            body["channels"] = [str(generator.choice(["vector", "term", "item", "popularity"]))]
        yield ParityRequest("/ml/rec", body)


def _filters(generator: np.random.Generator, terms: list[str], years: list[int]) -> dict[str, Any]:
    filters: dict[str, Any] = {}
    if terms and generator.random() < 0.15:
        filters["genres"] = sorted({str(generator.choice(terms)) for _ in range(2)})
    if years and generator.random() < 0.15:
        low, high = sorted(int(year) for year in generator.choice(years, 2))
        filters["year"] = {"gte": low, "lte": high}
    return filters
