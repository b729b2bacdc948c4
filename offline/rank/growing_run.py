"""What a click run does with its embedding tables before training, and with those that grew after each epoch."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from data_exchange_center.growing_features import raw_owners
from offline.models.frozen import frozen
from offline.models.growing import GrowthPolicy
from offline.models.initializers import Initializer
from offline.models.ranker import Ranker
from offline.rank.feature_encoding import FittedEncoder
from offline.training.config import EmbeddingsConfig, TrainConfig

ENCODER = "encoder"  # of a run; and beside the network of an epoch whose vocabularies are its own


def set_up_tables(ranker: Ranker, config: TrainConfig) -> None:
    """Makes the tables of a new network what the settings say: how rows begin, how they learn, and which ids grow."""
    embeddings, owners = config.embeddings, raw_owners(ranker.spec)
    chosen = (embeddings.initializer, embeddings.deviation)
    defaults = EmbeddingsConfig()
    policies = dict.fromkeys(owners, _policy(embeddings))
    for place in range(len(ranker.members)):
        tables = ranker.member(place).trunk.tables
        if chosen != (defaults.initializer, defaults.deviation):
            tables.begin(Initializer(*chosen))
        if config.optimizer.embeddings.sparse and config.distributed.tables == "whole":
            seed = config.training.seed + place
            tables.learn_by_row(policies, most_rows=embeddings.most_rows, seed=seed)


def _policy(embeddings: EmbeddingsConfig) -> GrowthPolicy:
    if embeddings.evict_after_epochs:
        return GrowthPolicy(embeddings.admit_after, embeddings.evict_after_epochs, "epoch")
    return GrowthPolicy(embeddings.admit_after, embeddings.evict_after_steps, "step")


def save_frozen(encoder: FittedEncoder, ranker: Ranker, folder: Path) -> None:
    """Writes a network whose embeddings grew as one of fixed vocabularies, and beside it the encoder that has these.

    Args:
        encoder: that passes the raw ids on.
    """
    made, vocabularies = frozen(ranker)
    fixed = replace(encoder, spec=made.spec, vocabularies={**encoder.vocabularies, **vocabularies})
    fixed.save(folder / ENCODER)
    made.save(folder)
