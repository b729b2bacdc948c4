"""Rows that an exported graph must survive: known values mixed with unseen, missing and extreme ones in every input.

Known tokens come from the encoder's own vocabularies, so that no data is needed.
"""

from __future__ import annotations

import numpy as np

from data_exchange_center.feature_spec import Feature
from data_exchange_center.raw_columns import NUMPY, missing_value
from data_exchange_center.vocabulary import FIRST
from offline.rank.feature_encoding import FittedEncoder

EXTREME_NUMBERS = np.array(
    [np.nan, np.inf, -np.inf, 3.4e38, -3.4e38, 1e30, 1e-45, -0.0, 2**24 + 1, -1.0, 0.0], np.float32
)
EXTREME_INTEGERS = np.array([-(2**63), 2**63 - 1, 2**53 + 1, -1, 0, 1, 2**31, 2**32 - 1], np.int64)
EXTREME_TEXTS = np.array(["", " ", "\x00", "é漢🙂", "a" * 1000, "0", "-1", "NaN"], object)
SHARES = (0.7, 0.1, 0.1, 0.1)  # of known, unseen, missing and extreme values


def odd_rows(encoder: FittedEncoder, rows: int, seed: int = 0) -> dict[str, np.ndarray]:
    """Raw inputs by feature: item and candidate inputs [rows, ...], user and context inputs [1, ...].

    A value is known, unseen, missing or extreme by `SHARES`, each on its own.
    """
    generator = np.random.default_rng(seed)
    made = {}
    for feature in encoder.spec.inputs:
        kind = encoder.spec.dtype_of(feature, *encoder.id_types)
        lead = 1 if feature.entity in ("user", "context") else rows
        shape = (lead, feature.length) if feature.is_list else (lead,)
        missing = np.full(shape, missing_value(feature, kind), NUMPY[kind])
        values = [_known(encoder, feature, kind, shape, generator), *_strange(kind, shape, generator)]
        values.insert(2, missing)
        made[feature.name] = np.choose(generator.choice(4, shape, p=SHARES), values).astype(NUMPY[kind])
    return made


def _known(
    encoder: FittedEncoder, feature: Feature, kind: str, shape: tuple[int, ...], generator: np.random.Generator
) -> np.ndarray:
    if feature.vocabulary is not None:
        owner = encoder.spec.vocabulary_of(feature)
        tokens = encoder.vocabularies[owner.name].tokens
        if owner.vocabulary and owner.vocabulary.policy == "growing":  # ids come, not tokens
            return generator.integers(0, FIRST + len(tokens), shape)
        if tokens:
            return generator.choice(np.array(tokens, NUMPY[kind]), shape)
    if kind == "string":
        return generator.choice(EXTREME_TEXTS, shape)
    return np.floor(np.exp(generator.uniform(0, 12, shape))).astype(NUMPY[kind])


def _strange(kind: str, shape: tuple[int, ...], generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """(unseen, extreme) values."""
    if kind == "int64":
        return generator.integers(-(2**63), 2**63 - 1, shape), generator.choice(EXTREME_INTEGERS, shape)
    if kind == "float32":
        return generator.normal(0, 1e6, shape).astype(np.float32), generator.choice(EXTREME_NUMBERS, shape)
    unseen = np.array([f"unseen {number}" for number in generator.integers(0, 2**40, shape).ravel()], object)
    return unseen.reshape(shape), generator.choice(EXTREME_TEXTS, shape)
