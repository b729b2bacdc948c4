"""The settings that shape every answer of a server."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from data_exchange_center.settings import Settings
from online.pipeline.explore import Exploration

Clock = Literal["wall", "user_last"]


@dataclass(frozen=True)
class Policy:
    """See the settings of the same names.

    Attributes:
        prerank_size: candidates that are scored (more when a larger list is asked for).
        per_channel: items asked of each recall channel.
        terms_from_index: the item index answers the term channel, not the release's arrays.
        suppress_seconds: items shown so long ago or less are left out; 0: none is.
        exploration: how a share of the places is explored; None: none is.
    """

    scene: str
    clock: Clock
    prerank_size: int
    per_channel: int
    terms_from_index: bool = False
    suppress_seconds: float = 0.0
    exploration: Exploration | None = None

    @classmethod
    def of(cls, settings: Settings) -> Policy:
        serve = settings.serve
        exploration = Exploration(serve.explore_share, serve.explore_bonus, serve.explore_temperature)
        return cls(
            scene=settings.scene,
            clock=settings.features.clock,
            prerank_size=serve.prerank_size,
            per_channel=settings.recall.candidates,
            terms_from_index=settings.recall.terms_from_index,
            suppress_seconds=serve.suppress_impressions_hours * 3600,
            exploration=exploration if serve.explore_share else None,
        )
