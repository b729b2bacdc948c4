"""What recall is judged on: the positives that the next cut adds."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from offline.recall.known_rows import Events


@dataclass(frozen=True)
class HeldOut:
    """Positives to be found.

    Attributes:
        users: int64 [J], user rows with at least one positive, ascending.
        positives: per user, int64 item rows, each once, ascending.
    """

    users: np.ndarray
    positives: list[np.ndarray]

    @classmethod
    def of(cls, later: Events, known: Events) -> HeldOut:
        """The positives of `later` that the user has no known event with: an earlier item is never recommended again."""
        pairs = np.unique(later.positives.users * later.item_count + later.positives.items)
        pairs = pairs[~np.isin(pairs, known.users * known.item_count + known.items)]
        if not len(pairs):
            return cls(np.empty(0, np.int64), [])
        users, first = np.unique(pairs // later.item_count, return_index=True)
        return cls(users, np.split(pairs % later.item_count, first[1:]))

    def sample(self, most: int) -> HeldOut:
        """At most so many users, evenly spread over the users table."""
        step = -(-len(self.users) // most) if self.users.size else 1
        return HeldOut(self.users[::step], self.positives[::step])
