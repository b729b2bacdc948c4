"""The port of vocabularies that grow online: a token never seen before gets its id at the first request that names it.

Once a scene is live its online vocabulary alone hands out ids, to the daily job too, so ids are keyed by scene and feature and
not by release: `seed` brings a release's vocabulary in, `export` hands all of it to the next fit, with the same numbers.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from data_exchange_center.vocabulary import UNKNOWN, Token, Vocabulary

MAX_TOKENS = 1000  # of one call


@dataclass(frozen=True)
class Assigned:
    """What a batch of tokens became.

    Attributes:
        ids: int64 [N], in the order asked; UNKNOWN where a token has no id.
        added: tokens that got an id now.
        full: new tokens for which there is no room.
        limited: new tokens that the client's rate did not allow.
        refused: tokens that are none: too long, empty, or with control characters (see tokens.py).
    """

    ids: np.ndarray
    added: int = 0
    full: int = 0
    limited: int = 0
    refused: int = 0


class VocabularyStore(ABC):
    """Vocabularies of every scene and feature. Adapters are safe to use from several threads."""

    @abstractmethod
    def assign(
        self, scene: str, feature: str, tokens: Sequence[Token], timeout: float, client: str = "", new_limit: int = -1
    ) -> Assigned:
        """Looks tokens up and gives each new one the next id, atomically and in one round trip.

        Ids have no gaps and are never above the capacity, whoever asks at the same time and whenever a server dies: an id
        that was answered is on disk.

        Args:
            tokens: at most MAX_TOKENS; others than those that `tokens.cleaned` returns are UNK.
            client: whose new tokens are counted together.
            new_limit: new tokens that the client may bring a minute; -1 is no limit, 0 only looks up.

        Raises:
            StoreUnavailable: the store is away; nothing is known to be assigned, and asking again is harmless.
            StoreError: the feature has no vocabulary here; publish a release.
        """

    @abstractmethod
    def seed(self, scene: str, vocabulary: Vocabulary) -> int:
        """Brings in a release's vocabulary: adds what is not there, under its own ids; returns how many were added.

        Raises:
            StoreError: a token has another id here, or an id another token, or the capacity is smaller; no id was changed.
        """

    @abstractmethod
    def export(self, scene: str, feature: str) -> Vocabulary:
        """Everything assigned so far.

        Raises:
            StoreError: no such vocabulary, or it contradicts itself (two tokens with one id, an id without a token).
        """

    @abstractmethod
    def evict(self, scene: str, feature: str, tokens: Sequence[Token], rule: str, at: str) -> int:
        """Takes tokens out, whose ids are given out again only when no other is left; returns how many left.

        Args:
            rule: why, in words. at: when, ISO 8601. Both are recorded with the tokens and their ids, and `export` tells them.
        """

    @abstractmethod
    def generation(self, scene: str, feature: str, timeout: float) -> str:
        """Changes when the vocabulary was made anew (an emptied store), so that what a process remembers is void."""

    @abstractmethod
    def drop(self, scene: str, feature: str) -> None:
        """Removes a vocabulary; one that is not there is no error."""


def unknown(count: int) -> np.ndarray:
    """int64 [count] of UNKNOWN."""
    return np.full(count, UNKNOWN, np.int64)
