"""What each channel finds for a user, and the merged list: the offline twin of serving, without an index."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from data_exchange_center.candidates import CHANNELS, feature_of, merge
from data_exchange_center.recall_scores import RecallArrays, UserTaste, top_rows
from offline.recall.known_rows import Events


@dataclass(frozen=True)
class Found:
    """One user's recall.

    Attributes:
        lists: channel -> int32 item rows, best first.
        scores: `recall_<channel>` -> float32 [items].
    """

    lists: dict[str, np.ndarray]
    scores: dict[str, np.ndarray]

    def merged(self, arrays: RecallArrays, size: int) -> np.ndarray:
        """The merged list: int32 item rows, best first."""
        return merge(self.lists.values(), self.scores, arrays.weights, size)[0]


class Finder:
    """Asks every channel for users of a cut; items that a user has known events with are never found.

    Args:
        arrays: the fitted channels. users: taste of every user row. events: known at the cut. size: items asked of a channel.
    """

    def __init__(self, arrays: RecallArrays, users: list[UserTaste], events: Events, size: int) -> None:
        self.arrays, self.users, self.events, self.size = arrays, users, events, size

    def find(self, user: int) -> Found:
        """user: a user row."""
        scores = self.arrays.catalog_scores(self.users[user])
        eligible = self.eligible(user)
        # a channel that knows nothing of the user scores every item the same and has nothing to propose
        lists = {
            channel: top_rows(scores[feature_of(channel)], eligible & self._proposes(channel, scores), self.size)
            for channel in CHANNELS
        }
        return Found(lists, scores)

    def eligible(self, user: int) -> np.ndarray:
        """bool [items]: not met before."""
        allowed = np.ones(self.events.item_count, bool)
        allowed[self.events.items[self.events.starts[user] : self.events.starts[user + 1]]] = False
        return allowed

    def _proposes(self, channel: str, scores: dict[str, np.ndarray]) -> np.ndarray:
        found = scores[feature_of(channel)]
        if channel == "term":
            return found > 0  # an index answers with items that have one of the user's terms
        return np.full(len(found), bool(found.any()))
