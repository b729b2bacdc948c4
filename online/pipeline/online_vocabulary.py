"""Tokens -> ids during a request: a local memory in front of the store, and UNK when the store is away.

Ids never change, so what was looked up once is remembered. A store that was emptied begins another generation; it is asked for
now and then, and a memory of an older one is forgotten.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from data_exchange_center.errors import StoreError
from data_exchange_center.tokens import cleaned
from data_exchange_center.vocabulary import UNKNOWN, Token
from online.stores.vocabulary_store import Assigned, VocabularyStore, unknown

REMEMBERED = 1_000_000  # tokens of one feature; beyond it the memory starts anew
LOOK_SECONDS = 30.0  # between two looks at the generation


@dataclass(frozen=True)
class Resolved:
    """The ids of a request's tokens.

    Attributes:
        ids: int64 [N]. degraded: the store was away; tokens that this process does not know are UNK.
        assigned: what the store said; None when it was not asked.
    """

    ids: np.ndarray
    degraded: bool
    assigned: Assigned | None = None


class OnlineVocabulary:
    """One feature's vocabulary as one process knows it; safe to use from several threads.

    Args:
        new_limit: new tokens that one client may bring a minute; -1 is no limit.
    """

    def __init__(self, store: VocabularyStore, scene: str, feature: str, new_limit: int = -1) -> None:
        self._store, self._scene, self._feature, self._limit = store, scene, feature, new_limit
        self._known: dict[Token, int] = {}
        self._generation, self._looked = "", 0.0
        self._lock = threading.Lock()

    def ids(self, tokens: Sequence[Token], timeout: float, client: str = "") -> Resolved:
        """Looks up, and assigns ids to new tokens; one round trip when any is new to this process, none otherwise."""
        clean = [cleaned(token) for token in tokens]
        try:
            self._look(timeout)
            known = self._known
            new = list(dict.fromkeys(token for token in clean if token is not None and token not in known))
            assigned = None
            if new:
                assigned = self._store.assign(self._scene, self._feature, new, timeout, client, self._limit)
                found = dict(zip(new, assigned.ids.tolist(), strict=True))
                self._remember({token: number for token, number in found.items() if number != UNKNOWN})
                known = {**{token: known[token] for token in clean if token in known}, **found}
            return Resolved(_spelled(clean, known), False, assigned)
        except StoreError:
            return Resolved(_spelled(clean, self._known), True)

    def remembered(self, tokens: Sequence[Token]) -> Resolved:
        """What this process knows without asking; other tokens are UNK."""
        clean = [cleaned(token) for token in tokens]
        known = self._known
        return Resolved(_spelled(clean, known), any(token is not None and token not in known for token in clean))

    def _look(self, timeout: float) -> None:
        if time.monotonic() - self._looked < LOOK_SECONDS:
            return
        generation = self._store.generation(self._scene, self._feature, timeout)
        with self._lock:
            if generation != self._generation:
                self._known = {}
            self._generation, self._looked = generation, time.monotonic()

    def _remember(self, found: dict[Token, int]) -> None:
        with self._lock:
            if len(self._known) + len(found) > REMEMBERED:
                self._known = {}
            self._known.update(found)


def _spelled(tokens: Sequence[Token | None], known: dict[Token, int]) -> np.ndarray:
    ids = unknown(len(tokens))
    for place, token in enumerate(tokens):
        if token is not None:
            ids[place] = known.get(token, UNKNOWN)
    return ids
