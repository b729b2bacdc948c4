"""Users with known tastes, who look through lists and answer them: the generator's truth made people, in a world that moves.

Tastes turn: day by day each user's taste becomes a little more that of another user, drawn once, so that what users are like as a
whole stays. Items appear: a share of the catalog is known by its title and genres from the start, but nobody can be shown it
before its day. Both are what a log that ended cannot tell; a world without them is one setting away (no drift, no new items).
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field, replace

import numpy as np
from scipy.special import expit

from offline.datasets.synthetic import Truth

PATIENCE = 0.92  # probability that who has looked at a place of a list looks at the next
EAGER = 0.9  # quantile of all choices whose item is taken with probability 1/2


@dataclass(frozen=True)
class World:
    """A truth that moves; users and items are 0-based rows.

    Attributes:
        drift: radians by which tastes turn each day.
        becomes: [users], the user whose taste each one turns towards.
        appears: [items], the day from which each item may be shown; 0: from before the log.
        eager: the choice at which an item is taken with probability 1/2.
    """

    truth: Truth = field(repr=False)
    drift: float
    becomes: np.ndarray = field(repr=False)
    appears: np.ndarray = field(repr=False)
    eager: float

    @classmethod
    def of(cls, truth: Truth, *, drift: float, new_items: float, days: int, seed: int) -> World:
        """A world whose new items, that share of all, appear evenly on the days 1 to `days`."""
        random = np.random.default_rng([seed, 7])
        users, items = len(truth.user_factors), len(truth.item_factors)
        appears = np.zeros(items, np.int64)
        late = random.permutation(items)[: round(new_items * items)]
        appears[late] = 1 + np.arange(len(late)) % days
        return cls(truth, drift, random.permutation(users), appears, float(np.quantile(_choice(truth), EAGER)))

    def takes(self, day: int) -> np.ndarray:
        """[users, items] float64: the probability that a user who looks at an item takes it on a day (0: when the log was written).

        It follows the weight with which the generator's users choose: what a perfect recommender orders by.
        """
        old, new = np.cos(self.drift * day), np.sin(self.drift * day)
        turned = {
            name: old * tastes + new * tastes[self.becomes]
            for name in ("user_factors", "genre_tastes", "year_tastes")
            for tastes in [getattr(self.truth, name)]
        }
        return expit(_choice(replace(self.truth, **turned)) - self.eager)

    def hidden(self, day: int) -> list[int]:
        """Items that nobody can be shown on a day yet."""
        return np.flatnonzero(self.appears > day).tolist()


def _choice(truth: Truth) -> np.ndarray:
    users, items = np.arange(len(truth.user_factors)), np.arange(len(truth.item_factors))
    return truth.choice(users[:, None], items[None, :]).astype(np.float64)


def taken_of(takes: np.ndarray, shown: Collection[int], luck: np.random.Generator) -> list[int]:
    """Places of a list whose items are taken by a user who looks from the top, ever less far.

    Args:
        takes: [items] of the user.
    """
    drawn = luck.random((len(shown), 2))
    return [
        place for place, item in enumerate(shown) if drawn[place, 0] < PATIENCE**place and drawn[place, 1] < takes[item]
    ]


@dataclass(frozen=True)
class Worth:
    """What a user who looks at all of a list takes of it, of the best list of that length, and of one drawn at random."""

    got: float
    best: float
    random: float


def worth_of(takes: np.ndarray, shown: Collection[int], out: Collection[int]) -> Worth:
    """The worth of a list.

    Args:
        takes: [items] of the user. out: items that no list of this user may hold.
    """
    rest = np.delete(takes, list(out))
    best = float(np.sort(rest)[::-1][: len(shown)].sum())
    return Worth(float(takes[list(shown)].sum()), best, float(rest.mean() * len(shown)))
