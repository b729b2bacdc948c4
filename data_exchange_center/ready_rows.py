"""Rows of a log or of a request -> rows that the graph takes: tokens of growing vocabularies become ids, texts become vectors.

Both need what no graph holds: a vocabulary that grows between releases, and a sentence model. Training and serving make their rows
here, each with its own way to the ids: the vocabularies of the fit, or the online ones, which are kept the same.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa

from data_exchange_center.errors import DataError
from data_exchange_center.feature_spec import Feature, FeatureSpec
from data_exchange_center.raw_columns import ARROW
from data_exchange_center.tables import cast_column
from data_exchange_center.tokens import cleaned
from data_exchange_center.vocabulary import UNKNOWN, Token, Vocabulary, fit_vocabulary

Ids = Callable[[str, Sequence[Token | None]], np.ndarray]
Vectors = Callable[[Sequence[str]], np.ndarray]


def growing(feature: Feature) -> bool:
    """Whether a feature's own vocabulary is one that grows."""
    return feature.vocabulary is not None and feature.vocabulary.policy == "growing"


def raw_columns_of(spec: FeatureSpec) -> dict[str, pa.DataType]:
    """The columns that a log of the scene has, the label left out: name -> type, in the order of the features."""
    made: dict[str, pa.DataType] = {}
    for feature in spec.inputs:
        if growing(feature):
            made[feature.name] = ARROW[feature.vocabulary.token]  # type: ignore[union-attr]
        elif feature.text:
            made[feature.text] = pa.string()
        elif feature.is_list:
            made[feature.name] = pa.list_(ARROW[feature.dtype])
        else:
            made[feature.name] = ARROW["int64" if feature.dtype == "id" else feature.dtype]
    return made


def ready_rows(spec: FeatureSpec, rows: pa.Table, ids: Ids, vectors: Vectors) -> pa.Table:
    """The same rows as the graph takes them; other columns, the label among them, stay.

    Args:
        spec: of the scene.
        rows: with the columns of `raw_columns_of`.
        ids: (owner of a vocabulary, tokens; None for what is none) -> int64 [N].
        vectors: texts -> float32 [N, d].

    Raises:
        DataError: a column is missing or of another type, or vectors are of another length than the feature declares.
    """
    made = rows
    for feature in spec.inputs:
        if growing(feature):
            column = cast_column(made, feature.name, ARROW[feature.vocabulary.token])  # type: ignore[union-attr]
            tokens = [cleaned(value) for value in column.to_pylist()]
            found = pa.array(ids(spec.vocabulary_of(feature).name, tokens), pa.int64())
            made = made.set_column(made.schema.get_field_index(feature.name), feature.name, found)
        elif feature.text:
            given = [
                "" if value is None else value for value in cast_column(rows, feature.text, pa.string()).to_pylist()
            ]
            found = vectors(given)
            if found.shape != (len(rows), feature.length):
                raise DataError(
                    f"feature {feature.name!r} declares vectors of {feature.length}, the text encoder makes {found.shape[-1]}: "
                    "change its length in the feature spec, or the settings of `text`",
                    field=feature.name,
                )
            flat = pa.FixedSizeListArray.from_arrays(pa.array(found.ravel()), feature.length)
            made = made.append_column(feature.name, flat.cast(pa.list_(pa.float32())))
    texts = {feature.text for feature in spec.inputs if feature.text} - {feature.name for feature in spec.inputs}
    return made.drop_columns(sorted(texts))


def known_ids(vocabularies: Mapping[str, Vocabulary]) -> Ids:
    """Ids by vocabularies that are at hand; UNKNOWN for what they do not hold."""

    def ids(owner: str, tokens: Sequence[Token | None]) -> np.ndarray:
        known = vocabularies[owner].ids
        return np.array([UNKNOWN if token is None else known.get(token, UNKNOWN) for token in tokens], np.int64)

    return ids


def grown_vocabularies(
    spec: FeatureSpec, rows: pa.Table, known: Mapping[str, Vocabulary] | None = None
) -> dict[str, Vocabulary]:
    """The growing vocabularies with the tokens of a log's rows added, most frequent first; ids that are known never change.

    Args:
        rows: with the columns of `raw_columns_of`.
        known: the vocabularies so far, by owner.
    """
    made = {}
    for name in vocabularies_that_grow(spec):
        policy = spec[name].vocabulary
        assert policy is not None  # noqa: S101  # owners have one
        kind = ARROW[policy.token]
        tokens = [cleaned(value) for value in cast_column(rows, name, kind).to_pylist()]
        made[name] = fit_vocabulary(name, policy, pa.array(tokens, kind), known=(known or {}).get(name))
    return made


def load_vocabularies(spec: FeatureSpec, folder: Path) -> dict[str, Vocabulary]:
    """The growing vocabularies in a folder, `<feature>.json` each.

    Raises:
        DataError: one is missing or broken.
    """
    return {name: Vocabulary.load(folder, name) for name in vocabularies_that_grow(spec)}


def vocabularies_that_grow(spec: FeatureSpec) -> list[str]:
    """The features that own a vocabulary of policy growing."""
    return [feature.name for feature in spec.inputs if growing(feature) and spec.vocabulary_of(feature) is feature]
