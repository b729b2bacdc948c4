"""What is asked of the pipeline and what it answers: plain values, no HTTP and no stores."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from online.stores.ports import Filters, Id


@dataclass(frozen=True)
class Query:
    """One request for a list.

    Attributes:
        channels: recall channels that may propose; empty: all.
        now: unix seconds; None: by the `clock` setting.
        explain: keep provenance, raw features and logits.
    """

    user_id: Id
    size: int = 50
    exclude: tuple[Id, ...] = ()
    filters: Filters = field(default_factory=Filters)
    channels: frozenset[str] = frozenset()
    diversity: float = 0.0
    min_score: float = 0.0
    now: int | None = None
    explain: bool = False


@dataclass(frozen=True)
class Scores:
    """Aligned with the rows that were scored: float32 [N]; the logits are empty when no model answered."""

    score: np.ndarray
    like: np.ndarray
    score_logit: np.ndarray
    like_logit: np.ndarray


@dataclass(frozen=True)
class Explanation:
    """Of the items of one answer, in its order.

    Attributes:
        channels: per item, channel -> (rank from 1, that channel's score).
        inputs: feature -> raw value as scored; user and context features [1, ...], the others [n, ...].
    """

    channels: list[dict[str, tuple[int, float]]] = field(repr=False)
    inputs: dict[str, np.ndarray] = field(repr=False)
    scores: Scores = field(repr=False)


@dataclass(frozen=True)
class Answer:
    """One answered list, best first.

    Attributes:
        rows: int32 [n], item rows of the release. item_ids: the same as ids.
        score, like: float32 [n].
        now: the moment that it was scored for, unix seconds.
        scored: how many candidates were scored.
        explored: place -> probability with which exploration drew that item; the others are there by their score.
    """

    rows: np.ndarray
    item_ids: list[Id]
    score: np.ndarray
    like: np.ndarray
    cold_start: bool
    now: int
    scored: int
    explanation: Explanation | None = None
    explored: Mapping[int, float] = field(default_factory=dict)
