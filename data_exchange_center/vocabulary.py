"""Token -> id. Id 0 is padding, 1 is UNK (anything the vocabulary does not hold), 2 and up are tokens.

A vocabulary is fitted once per fit, persisted as readable JSON, and travels inside the ONNX graph. One of a growing policy has
a capacity: ids up to `size` exist in every embedding table, so that tokens can be added without a new model. Growing adds and
never renumbers; a token leaves only by `evict`, which records why, and its id is given out again only when no other is left.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from data_exchange_center.errors import DataError, SpecError
from data_exchange_center.feature_spec import VocabularyPolicy
from data_exchange_center.workspace import read_json, write_json

log = logging.getLogger("marquee")

PADDING, UNKNOWN, FIRST = 0, 1, 2
Token = int | str


@dataclass(frozen=True)
class Growth:
    """What adding tokens did.

    Attributes:
        vocabulary: with the tokens that it could take.
        added: token -> its new id.
        reused: of these ids, the ones that an evicted token had: whoever trains starts their rows anew.
        refused: new tokens that found no room and stay UNK.
    """

    vocabulary: Vocabulary
    added: dict[Token, int]
    reused: tuple[int, ...]
    refused: tuple[Token, ...]


@dataclass(frozen=True)
class Vocabulary:
    """The tokens of one feature, in the order of their ids.

    Attributes:
        feature: whose tokens these are.
        tokens: all of one type, int or str; token k has id FIRST + k. None where a token was evicted and no other took its id.
        capacity: most tokens it can ever hold; at least len(tokens).
        evictions: what `evict` recorded, oldest first.
    """

    feature: str
    tokens: tuple[Token | None, ...]
    capacity: int
    evictions: tuple[dict[str, Any], ...] = ()

    @property
    def size(self) -> int:
        """Rows that an embedding table needs: padding, UNK and every token up to the capacity."""
        return FIRST + self.capacity

    @cached_property
    def ids(self) -> dict[Token, int]:
        """token -> id."""
        return {token: FIRST + place for place, token in enumerate(self.tokens) if token is not None}

    def encode(self, token: Token) -> int:
        """A token's id; UNKNOWN when the vocabulary does not hold it."""
        return self.ids.get(token, UNKNOWN)

    def grown(self, tokens: Iterable[Token]) -> Growth:
        """A copy with unseen tokens added in their order; known ids never change. Ids of evicted tokens are given out last."""
        new = [token for token in dict.fromkeys(tokens) if token not in self.ids]
        appended, free = self.capacity - len(self.tokens), [k for k, token in enumerate(self.tokens) if token is None]
        places = [*range(len(self.tokens), len(self.tokens) + min(appended, len(new))), *free][: len(new)]
        held: list[Token | None] = [*self.tokens, *[None] * max(0, min(appended, len(new)))]
        for place, token in zip(places, new, strict=False):
            held[place] = token
        return Growth(
            replace(self, tokens=tuple(held)),
            {token: FIRST + place for place, token in zip(places, new, strict=False)},
            tuple(FIRST + place for place in places if place < len(self.tokens)),
            tuple(new[len(places) :]),
        )

    def evict(self, tokens: Iterable[Token], rule: str, at: str) -> Vocabulary:
        """A copy without these tokens; the others keep their ids.

        Args:
            rule: why, in words; kept in `evictions`. at: when, ISO 8601.

        Raises:
            SpecError: a token is not in the vocabulary.
        """
        leaving = list(dict.fromkeys(tokens))
        unknown = [token for token in leaving if token not in self.ids]
        if unknown:
            raise SpecError(f"vocabulary of {self.feature!r} holds no {unknown[0]!r} to evict", field=self.feature)
        gone = set(leaving)
        record = {"at": at, "rule": rule, "tokens": {str(token): self.ids[token] for token in leaving}}
        kept = tuple(None if token in gone else token for token in self.tokens)
        return replace(self, tokens=kept, evictions=(*self.evictions, record) if leaving else self.evictions)

    def save(self, folder: Path) -> Path:
        """Writes `<feature>.json` atomically; returns its path."""
        path = folder / f"{self.feature}.json"
        content: dict[str, Any] = {"feature": self.feature, "capacity": self.capacity, "tokens": list(self.tokens)}
        write_json(path, content | ({"evictions": list(self.evictions)} if self.evictions else {}))
        return path

    @classmethod
    def load(cls, folder: Path, feature: str) -> Vocabulary:
        """Reads `<feature>.json`.

        Raises:
            DataError: missing, not JSON, or not a vocabulary (tokens of two types, repeated ones, more than the capacity).
        """
        path = folder / f"{feature}.json"
        content = read_json(path)
        try:
            vocabulary = cls(
                str(content["feature"]),
                tuple(content["tokens"]),
                int(content["capacity"]),
                tuple(dict(record) for record in content.get("evictions", ())),
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise DataError(f"{path}: not a vocabulary: {error!r}", field=feature) from error
        held = [token for token in vocabulary.tokens if token is not None]
        kinds = {type(token) for token in held}
        if not (kinds <= {int} or kinds <= {str}):
            raise DataError(f"{path}: tokens must all be integers or all strings", field=feature)
        if len(held) < len(vocabulary.tokens) and not vocabulary.evictions:
            raise DataError(f"{path}: an id without a token, and no eviction that says why", field=feature)
        if len(vocabulary.ids) != len(held) or len(vocabulary.tokens) > vocabulary.capacity:
            raise DataError(f"{path}: repeated tokens, or more than the capacity {vocabulary.capacity}", field=feature)
        return vocabulary


def fit_vocabulary(
    feature: str,
    policy: VocabularyPolicy,
    values: pa.ChunkedArray | pa.Array,
    missing: int | str | None = None,
    known: Vocabulary | None = None,
) -> Vocabulary:
    """Makes a feature's vocabulary from the values of the fit's rows; see `vocabulary_of_counts`.

    Args:
        values: int64 or string, or lists of them; nulls and empty strings are no tokens.
        missing: what stands for null, for a policy with `missing`.
        known: of a growing policy, the vocabulary so far.

    Raises:
        SpecError: the policy lacks what it needs (tokens, a capacity, buckets); the feature is named.
    """
    if pa.types.is_list(values.type) or pa.types.is_large_list(values.type):
        values = pc.list_flatten(values)
    counts = pc.value_counts(values)
    if isinstance(counts, pa.ChunkedArray):
        counts = counts.combine_chunks()
    return vocabulary_of_counts(
        feature, policy, counts.field("values"), np.asarray(counts.field("counts")), missing, known
    )


def vocabulary_of_counts(
    feature: str,
    policy: VocabularyPolicy,
    tokens: pa.Array,
    rows: np.ndarray,
    missing: int | str | None = None,
    known: Vocabulary | None = None,
) -> Vocabulary:
    """Makes a feature's vocabulary from how often each token came.

    Learned and growing ones hold the tokens seen at least `min_frequency` times, most frequent first, equal ones by token, so
    that the same rows always give the same ids; before them the token `missing` when the policy says so. Fixed ones hold their
    declared tokens, hashed ones only a capacity, raw ones nothing yet.

    Args:
        tokens: distinct ones; null and the empty string are no tokens.
        rows: int [tokens].
        known: of a growing policy, the vocabulary so far: its ids stay, unseen tokens are added while there is room.

    Raises:
        SpecError: the policy lacks what it needs (tokens, a capacity, buckets); the feature is named.
    """
    if policy.policy == "hashed":
        if policy.buckets < 1:
            raise SpecError(f"feature {feature!r}: a hashed vocabulary needs `buckets`", field=feature)
        return Vocabulary(feature, (), policy.buckets)
    if policy.policy == "raw":
        return Vocabulary(feature, (), 0)
    if policy.policy == "fixed":
        if not policy.tokens or len({type(token) for token in policy.tokens}) != 1:
            raise SpecError(f"feature {feature!r}: a fixed vocabulary needs `tokens` of one type", field=feature)
        return Vocabulary(feature, tuple(policy.tokens), len(policy.tokens))
    first = (missing,) if policy.missing and missing is not None else ()
    seen = tokens.to_pylist()
    kept = [
        place
        for place, token in enumerate(seen)
        if token is not None and token != "" and token not in first and rows[place] >= policy.min_frequency
    ]
    found = (*first, *(seen[place] for place in sorted(kept, key=lambda place: (-rows[place], seen[place]))))
    if policy.policy == "learned":
        return Vocabulary(feature, found, len(found))
    if policy.capacity < 1:
        raise SpecError(f"feature {feature!r}: a growing vocabulary needs a `capacity`", field=feature)
    growth = (known or Vocabulary(feature, (), policy.capacity)).grown(found)
    if growth.refused:
        log.warning(
            "vocabulary of %r is full at %d tokens: %d more fall to UNK",
            feature,
            growth.vocabulary.capacity,
            len(growth.refused),
        )
    return growth.vocabulary
