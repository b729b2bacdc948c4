"""A network whose embeddings grew, as one of fixed vocabularies: what is saved, exported and served."""

from __future__ import annotations

from dataclasses import replace

import torch

from data_exchange_center.growing_features import with_policy
from data_exchange_center.vocabulary import Vocabulary
from offline.models.ranker import Ranker


def frozen(ranker: Ranker) -> tuple[Ranker, dict[str, Vocabulary]]:
    """A copy on the CPU that answers encoded ids as the network answers raw ones.

    Returns:
        The copy, ready for inference, and the vocabularies that encode for it: the ids that own a row, all others being UNK.
    """
    state = {name: tensor for name, tensor in ranker.state_dict().items() if ".trunk.tables." not in name}
    vocabularies = dict[str, Vocabulary]()
    for place in range(len(ranker.members)):
        vocabularies, weights = ranker.member(place).trunk.tables.frozen()  # members see the same ids, so own the same
        state |= {f"members.{place}.trunk.tables.sizes.{size}.weight": weight for size, weight in weights.items()}
    rows = ranker.config.rows | {name: vocabulary.size for name, vocabulary in vocabularies.items()}
    with torch.random.fork_rng(devices=[]):  # what the copy begins with is drawn, and training must not notice
        made = Ranker(with_policy(ranker.spec, vocabularies, "learned"), replace(ranker.config, rows=rows))
    made.load_state_dict(state)
    return made.eval(), vocabularies
