"""Exploration: a few places of a list go to items that the model is not sure about, so that what users do can teach it more.

A model that learns from its own lists alone learns about what it shows already. With `serve.explore_share` the best items by score
keep the other places, and the explored ones are drawn, without replacement, among the candidates that were scored and left over:

    P(item) ~ exp((logit of the score + bonus / sqrt(1 + events of the item)) / temperature)

The bonus is what an item's score may be wrong by, which shrinks as its events grow. Drawing (rather than taking the greatest)
gives every item a chance that is known: its *propensity*, by which whoever learns or evaluates from the log can weigh it. The draw
depends on the request id alone, so that a request can be replayed. Scores stay the model's, and the answer stays sorted by them:
what is drawn scores no higher than the places that were kept, so explored items come last, where a wrong guess costs least.

Sources: the draw is Plackett-Luce by Gumbel noise (Kool et al., "Stochastic Beams and Where to Find Them", ICML 2019); the bonus is
that of UCB1 up to its logarithm (Auer et al., Machine Learning 47, 2002); propensities for learning: Joachims et al., WSDM 2017.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Exploration:
    """See the settings `serve.explore_...`.

    Attributes:
        share: of a list's places, in 0..0.5; a list too short for one whole place is not explored.
        bonus: of an item without events, in logits. temperature: 0 < T; a small one draws the best nearly always.
    """

    share: float
    bonus: float
    temperature: float

    def places(self, size: int) -> int:
        """How many items of a list are drawn."""
        return int(self.share * size + 1e-9)


def explored(
    rest: np.ndarray, logits: np.ndarray, events: np.ndarray, count: int, chosen: Exploration, request_id: str
) -> tuple[np.ndarray, np.ndarray]:
    """Draws from the candidates that were left over.

    Args:
        rest: int64 [n], places of candidates.
        logits: float32 [N], of the scores of all candidates. events: int64 [N], what is known of each.
        count: how many to draw.

    Returns:
        int64 [k] places, the highest logit first, and float64 [k], the probability with which each was drawn given those that
        were drawn before it. k is 0 where the rest leaves no choice: with `count` items or fewer nothing is explored.
    """
    if not 0 < count < len(rest):
        return np.empty(0, np.int64), np.empty(0)
    weight = (logits[rest].astype(np.float64) + chosen.bonus / np.sqrt(1.0 + events[rest])) / chosen.temperature
    random = np.random.default_rng(int.from_bytes(hashlib.blake2b(request_id.encode(), digest_size=8).digest(), "big"))
    drawn = np.argsort(-(weight + random.gumbel(size=len(rest))), kind="stable")[:count]
    mass = np.exp(weight - weight.max())
    before = np.concatenate([[0.0], np.cumsum(mass[drawn])[:-1]])
    chances = np.clip(mass[drawn] / np.maximum(mass.sum() - before, mass[drawn]), np.finfo(np.float64).tiny, 1.0)
    order = np.argsort(-logits[rest[drawn]], kind="stable")
    return rest[drawn[order]], chances[order]
