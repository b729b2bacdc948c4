"""The score of one row of raw values, in which any token of a growing vocabulary may be new.

A new token gets its id from the online vocabulary, the same one in every process. Training has not seen it, so its embedding
equals UNK's until a release that has learned it goes live; nothing has to be restarted for that.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from data_exchange_center.errors import StoreError
from data_exchange_center.ready_rows import raw_columns_of, ready_rows
from data_exchange_center.scored_rows import graph_inputs
from data_exchange_center.vocabulary import UNKNOWN, Token
from online.pipeline.breaker import Breaker
from online.pipeline.online_vocabulary import OnlineVocabulary, Resolved
from online.pipeline.predict_view import PredictView
from online.stores.ports import Scorer
from online.stores.vocabulary_store import VocabularyStore

VOCABULARY, NEW_TOKEN = "vocabulary", "new_token"
SHARE = 0.25  # of a request's budget that one question to the vocabularies may take


class OnlineVocabularies:
    """A scene's vocabularies as one process knows them; safe to use from several threads.

    Args:
        new_limit: new tokens of one feature that one client may bring a minute; -1 is no limit.
    """

    def __init__(self, store: VocabularyStore, scene: str, new_limit: int) -> None:
        self._store, self._scene, self._limit = store, scene, new_limit
        self._known: dict[str, OnlineVocabulary] = {}
        self._breaker = Breaker("vocabularies")

    def resolve(self, feature: str, tokens: Sequence[Token | None], timeout: float, client: str) -> Resolved:
        """Ids of tokens; the store is left alone for a moment after it failed several times in a row."""
        known = self._known.get(feature)
        if known is None:
            known = self._known.setdefault(feature, OnlineVocabulary(self._store, self._scene, feature, self._limit))
        given = ["" if token is None else token for token in tokens]  # which no vocabulary holds
        if not self._breaker.admits():
            return known.remembered(given)
        resolved = known.ids(given, timeout, client)
        if resolved.degraded:
            self._breaker.failed()
        else:
            self._breaker.succeeded()
        return resolved


@dataclass(frozen=True)
class Prediction:
    """What one row became.

    Attributes:
        score: a probability.
        ids: of each feature whose vocabulary grows.
        degraded: `vocabulary`: it was away, so a token that this process does not know is UNK; `new_token`: one found no
            room, was above the client's rate, or is none.
    """

    score: float
    ids: Mapping[str, int]
    degraded: tuple[str, ...]


def predict(
    view: PredictView,
    vocabularies: OnlineVocabularies,
    scorer: Scorer,
    values: Mapping[str, Any],
    *,
    budget: float,
    client: str,
) -> Prediction:
    """Scores one row.

    Args:
        values: by raw column (ready_rows.raw_columns_of); what is not there is missing.
        budget: seconds that the answer may take.
        client: whose new tokens are counted together.

    Raises:
        StoreError: the scorer is away, or answered something that is no probability.
    """
    started = time.perf_counter()
    ids: dict[str, int] = {}
    degraded: dict[str, None] = {}

    def resolve(owner: str, tokens: Sequence[Token | None]) -> np.ndarray:
        found = vocabularies.resolve(owner, tokens, SHARE * budget, client)
        ids[owner] = int(found.ids[0])
        if found.degraded:
            degraded[VOCABULARY] = None
        elif ids[owner] == UNKNOWN:
            degraded[NEW_TOKEN] = None
        return found.ids

    row = pa.table({name: pa.array([values.get(name)], kind) for name, kind in raw_columns_of(view.spec).items()})
    ready = ready_rows(view.spec, row, resolve, view.vectors or _no_vectors)
    inputs = graph_inputs(view.spec, view.form.inputs, ready)
    left = budget - (time.perf_counter() - started)
    (score,) = scorer.score(view.release.id, inputs, max(left, SHARE * budget))[view.form.output]
    if not np.isfinite(score):
        raise StoreError(f"the model of release {view.release.id} gave {score} for a row")
    return Prediction(float(score), ids, tuple(degraded))


def _no_vectors(texts: Sequence[str]) -> np.ndarray:
    raise AssertionError("no feature of this scene is made of text")
