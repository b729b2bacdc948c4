"""Users with known tastes, who look through lists and answer them: the generator's truth made people."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field

import numpy as np
from scipy.special import expit

from offline.datasets.synthetic import NOISE, Truth

PATIENCE = 0.92  # probability that who has looked at a place of a list looks at the next
EAGER = 0.9  # quantile of all choices whose item is taken with probability 1/2


@dataclass(frozen=True)
class Taken:
    """A user took the item at a place of a list and rated it."""

    place: int
    stars: float


@dataclass(frozen=True)
class SimulatedUsers:
    """All users of a truth; users and items are 0-based rows.

    Attributes:
        takes: [users, items] float64, the probability that a user who looks at an item takes it. It follows the weight with which
            the generator's users choose: what a perfect recommender orders by.
    """

    truth: Truth = field(repr=False)
    takes: np.ndarray = field(repr=False)

    @classmethod
    def of(cls, truth: Truth) -> SimulatedUsers:
        """The users of a truth."""
        users, items = np.arange(len(truth.user_factors)), np.arange(len(truth.item_factors))
        choice = truth.choice(users[:, None], items[None, :]).astype(np.float64)
        return cls(truth, expit(choice - np.quantile(choice, EAGER)))

    def answer(self, user: int, shown: Collection[int], random: np.random.Generator) -> list[Taken]:
        """What a user takes from a list: looks from the top, ever less far, and rates what was taken, with noise."""
        taken = []
        for place, item in enumerate(shown):
            looked, took, noise = random.random() < PATIENCE**place, random.random(), random.normal(0, NOISE)
            if looked and took < self.takes[user, item]:
                stars = self.truth.stars(np.array(user), np.array(item)) + noise
                taken.append(Taken(place, float(np.clip(np.rint(stars), 1, 5))))
        return taken

    def regret(self, user: int, shown: Collection[int], met: Collection[int]) -> tuple[float, float]:
        """What a user who looks at all of a list takes of it, and of the best list of that length that could have been shown.

        Args:
            met: items that the user has met before, which no list may hold.
        """
        rest = np.delete(self.takes[user], list(met))
        best = float(np.sort(rest)[::-1][: len(shown)].sum())
        return float(self.takes[user, list(shown)].sum()), best
