"""Token -> id. Id 0 is padding, 1 is UNK (anything the vocabulary does not hold), 2 and up are tokens.

A vocabulary is fitted once per fit, persisted as readable JSON, and travels inside the ONNX graph. One of a growing policy has
a capacity: ids up to `size` exist in every embedding table, so that tokens can be added without a new model.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from data_exchange_center.errors import DataError, SpecError
from data_exchange_center.feature_spec import VocabularyPolicy
from data_exchange_center.workspace import read_json, write_json

PADDING, UNKNOWN, FIRST = 0, 1, 2


@dataclass(frozen=True)
class Vocabulary:
    """The tokens of one feature, in the order of their ids.

    Attributes:
        feature: whose tokens these are.
        tokens: all of one type, int or str; token k has id FIRST + k.
        capacity: most tokens it can ever hold; at least len(tokens).
    """

    feature: str
    tokens: tuple[int | str, ...]
    capacity: int

    @property
    def size(self) -> int:
        """Rows that an embedding table needs: padding, UNK and every token up to the capacity."""
        return FIRST + self.capacity

    @cached_property
    def ids(self) -> dict[int | str, int]:
        """token -> id."""
        return {token: FIRST + place for place, token in enumerate(self.tokens)}

    def encode(self, token: int | str) -> int:
        """A token's id; UNKNOWN when the vocabulary does not hold it."""
        return self.ids.get(token, UNKNOWN)

    def extended(self, tokens: list[int] | list[str]) -> Vocabulary:
        """A copy with unseen tokens appended in their order; known ids never change.

        Raises:
            SpecError: more tokens than the capacity.
        """
        new = list(dict.fromkeys(token for token in tokens if token not in self.ids))
        if len(self.tokens) + len(new) > self.capacity:
            raise SpecError(
                f"vocabulary of {self.feature!r} is full: {len(self.tokens)} of {self.capacity} tokens, {len(new)} more asked",
                field=self.feature,
            )
        return Vocabulary(self.feature, (*self.tokens, *new), self.capacity)

    def save(self, folder: Path) -> Path:
        """Writes `<feature>.json` atomically; returns its path."""
        path = folder / f"{self.feature}.json"
        write_json(path, {"feature": self.feature, "capacity": self.capacity, "tokens": list(self.tokens)})
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
            vocabulary = cls(str(content["feature"]), tuple(content["tokens"]), int(content["capacity"]))
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(f"{path}: not a vocabulary: {error!r}", field=feature) from error
        kinds = {type(token) for token in vocabulary.tokens}
        if not (kinds <= {int} or kinds <= {str}):
            raise DataError(f"{path}: tokens must all be integers or all strings", field=feature)
        if len(vocabulary.ids) != len(vocabulary.tokens) or len(vocabulary.tokens) > vocabulary.capacity:
            raise DataError(f"{path}: repeated tokens, or more than the capacity {vocabulary.capacity}", field=feature)
        return vocabulary


def fit_vocabulary(
    feature: str, policy: VocabularyPolicy, values: pa.ChunkedArray | pa.Array, missing: int | str | None = None
) -> Vocabulary:
    """Makes a feature's vocabulary from the values of the fit's rows; see `vocabulary_of_counts`.

    Args:
        values: int64 or string, or lists of them; nulls and empty strings are no tokens.
        missing: what stands for null, for a policy with `missing`.

    Raises:
        SpecError: the policy lacks what it needs (tokens, a capacity, buckets); the feature is named.
    """
    if pa.types.is_list(values.type) or pa.types.is_large_list(values.type):
        values = pc.list_flatten(values)
    counts = pc.value_counts(values)
    if isinstance(counts, pa.ChunkedArray):
        counts = counts.combine_chunks()
    return vocabulary_of_counts(feature, policy, counts.field("values"), np.asarray(counts.field("counts")), missing)


def vocabulary_of_counts(
    feature: str, policy: VocabularyPolicy, tokens: pa.Array, rows: np.ndarray, missing: int | str | None = None
) -> Vocabulary:
    """Makes a feature's vocabulary from how often each token came.

    Learned and growing ones hold the tokens seen at least `min_frequency` times, most frequent first, equal ones by token, so
    that the same rows always give the same ids; before them the token `missing` when the policy says so. Fixed ones hold their
    declared tokens, hashed ones only a capacity.

    Args:
        tokens: distinct ones; null and the empty string are no tokens.
        rows: int [tokens].

    Raises:
        SpecError: the policy lacks what it needs (tokens, a capacity, buckets); the feature is named.
    """
    if policy.policy == "hashed":
        if policy.buckets < 1:
            raise SpecError(f"feature {feature!r}: a hashed vocabulary needs `buckets`", field=feature)
        return Vocabulary(feature, (), policy.buckets)
    if policy.policy == "fixed":
        if not policy.tokens or len({type(token) for token in policy.tokens}) != 1:
            raise SpecError(f"feature {feature!r}: a fixed vocabulary needs `tokens` of one type", field=feature)
        return Vocabulary(feature, tuple(policy.tokens), len(policy.tokens))
    first = (missing,) if policy.missing and missing is not None else ()
    known = tokens.to_pylist()
    kept = [
        place
        for place, token in enumerate(known)
        if token is not None and token != "" and token not in first and rows[place] >= policy.min_frequency
    ]
    found = (*first, *(known[place] for place in sorted(kept, key=lambda place: (-rows[place], known[place]))))
    if policy.policy == "learned":
        return Vocabulary(feature, found, len(found))
    if policy.capacity < 1:
        raise SpecError(f"feature {feature!r}: a growing vocabulary needs a `capacity`", field=feature)
    return Vocabulary(feature, found[: policy.capacity], policy.capacity)
