"""Logistic regression (Richardson et al., 2007, "Predicting Clicks"): a weight for every id and every number.

Ids of a list share their weight's mean. Numbers enter normalised, dense vectors element by element. No embedding is learned, so a
user's and an item's weights never meet: what orders items for one user and not for another are the crosses among the numbers.
From the paper it leaves out the hand-made features (term CTR, ad quality, ...) and the prior's per-feature mean.
"""

from __future__ import annotations

from dataclasses import dataclass

from offline.models.inputs import LinearTerm
from offline.models.registry import register
from offline.models.trunk import Reads, Shape


@dataclass(frozen=True)
class LrOptions:
    """It has no switches."""


def _build(shape: Shape, options: LrOptions) -> LinearTerm:
    return LinearTerm(shape)


register("lr", _build, LrOptions, {}, lambda options: Reads(embedding_size=lambda fields, declared: 0))
