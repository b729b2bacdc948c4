"""What a run takes over from another one, and what happens to ids that came since.

    warm_started   weights that fit, by name and shape
    continued      the whole checkpoint of the other run's chosen epoch: weights, optimizers' state, ids that grow

Vocabularies of policy `growing` have an embedding row for every id up to their capacity. A row that nobody owns yet equals UNK's
whenever a network is saved (`level_free_rows`), so an id that is given out online scores as UNK until training has seen it,
and training then starts it from there, with fresh optimizer state.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from data_exchange_center.errors import DataError, SettingsError
from data_exchange_center.feature_spec import FeatureSpec
from data_exchange_center.vocabulary import FIRST, PADDING, UNKNOWN, Vocabulary
from data_exchange_center.workspace import read_json
from offline.models.ranker import WEIGHTS_FILE, Ranker
from offline.models.row_table import RowTable
from offline.rank.feature_encoding import VOCABULARIES, FittedEncoder
from offline.rank.growing_run import ENCODER
from offline.training.checkpoint import checkpoint_name, load_checkpoint, optimizer_state
from offline.training.trainer import CHECKPOINTS, Trainer

log = logging.getLogger("marquee")

FIELD = "training.warm_start"


def growing_vocabularies(spec: FeatureSpec) -> list[str]:
    """Features that own a vocabulary of policy `growing`, whose ids the rows hold."""
    return [
        feature.name
        for feature in spec.features
        if feature.vocabulary and feature.vocabulary.policy == "growing" and not feature.vocabulary.share
    ]


def given_vocabularies(spec: FeatureSpec, folder: str) -> dict[str, Vocabulary]:
    """The vocabularies of a run's growing features.

    Args:
        spec: of the run. folder: `features.vocabularies`.

    Raises:
        SettingsError: there are growing features and no folder. DataError: a file is missing or broken, or of another capacity.
    """
    found = {}
    for name in growing_vocabularies(spec):
        if not folder:
            raise SettingsError(
                f"feature {name!r} has a growing vocabulary: set features.vocabularies to the folder of its {name}.json, which "
                "gave the rows their ids",
                field="features.vocabularies",
            )
        vocabulary = Vocabulary.load(Path(folder).expanduser(), name)
        declared = spec[name].vocabulary.capacity  # type: ignore[union-attr]
        if vocabulary.capacity != declared:
            raise DataError(
                f"{folder}/{name}.json: its capacity is {vocabulary.capacity}, the feature's {declared}", field=name
            )
        found[name] = vocabulary
    return found


def grown_encoder(encoder: FittedEncoder, vocabularies: Mapping[str, Vocabulary]) -> FittedEncoder:
    """The encoder with vocabularies that have grown since.

    Raises:
        DataError: a token has another id than before, or the capacity is another: the weights would mean something else.
    """
    for name, after in vocabularies.items():
        before = encoder.vocabularies[name]
        moved = [token for token, number in after.ids.items() if before.ids.get(token, number) != number]
        if moved or before.capacity != after.capacity:
            found = f"token {moved[0]!r} had id {before.ids[moved[0]]}" if moved else f"capacity was {before.capacity}"
            raise DataError(f"the vocabulary of {name!r} is no continuation of the run's: {found}", field=name)
    return replace(encoder, vocabularies={**encoder.vocabularies, **vocabularies})


def fresh_ids(before: Vocabulary, after: Vocabulary) -> np.ndarray:
    """Ids, int64, whose token was not there before, or was another's: their rows begin anew."""
    known = (*before.tokens, *[None] * (len(after.tokens) - len(before.tokens)))
    pairs = enumerate(zip(known, after.tokens, strict=False), start=FIRST)
    return np.array([number for number, (old, new) in pairs if new is not None and new != old], np.int64)


def level_free_rows(ranker: Ranker, vocabularies: Mapping[str, Vocabulary]) -> None:
    """Makes the rows of ids that no token has equal to UNK's, in place."""
    for name, vocabulary in vocabularies.items():
        taken = np.zeros(vocabulary.size, bool)
        taken[: FIRST + len(vocabulary.tokens)] = [True] * FIRST + [token is not None for token in vocabulary.tokens]
        _begin_as_unknown(ranker, name, torch.from_numpy(np.flatnonzero(~taken)))


def save_level(vocabularies: Mapping[str, Vocabulary], ranker: Ranker, folder: Path) -> None:
    """Writes a network whose free rows equal UNK's."""
    level_free_rows(ranker, vocabularies)
    ranker.save(folder)


@torch.no_grad()
def _begin_as_unknown(ranker: Ranker, owner: str, ids: Tensor) -> None:
    for place in range(len(ranker.members)):
        tables = ranker.member(place).trunk.tables
        if owner in tables.owners and len(ids):
            rows = tables.of(owner)  # without padding: id k is row k - 1
            rows[ids - 1 - PADDING] = rows[UNKNOWN - 1 - PADDING].clone()


def warm_started(ranker: nn.Module, folder: Path) -> list[str]:
    """Takes over the weights of another run that have the same name and shape here.

    Returns:
        What differs, named with both shapes; also in the log.

    Raises:
        DataError: the folder has no network, or nothing of it fits.
    """
    given = _network_of(folder)
    own = ranker.state_dict()
    fits = {name: tensor for name, tensor in given.items() if name in own and own[name].shape == tensor.shape}
    fits = {name: tensor for name, tensor in fits.items() if name != "calibration"}
    differs = _differences(own, given)
    if not fits:
        raise DataError(f"{folder}: nothing fits the new network: {'; '.join(differs)}", field=FIELD)
    ranker.load_state_dict({**own, **fits})
    for line in differs:
        log.warning("  not taken from %s: %s", folder, line)
    return differs


def _network_of(folder: Path) -> dict[str, Tensor]:
    path = folder / "network" / WEIGHTS_FILE
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise DataError(f"{path}: no weights to start from: {error}", field=FIELD) from error


def _differences(own: Mapping[str, Tensor], given: Mapping[str, Tensor]) -> list[str]:
    lines = []
    for name in sorted({*own, *given}):
        mine, theirs = (f"{list(side[name].shape)}" if name in side else "nothing" for side in (own, given))
        if mine != theirs:
            lines.append(f"{name} is {mine} here and {theirs} there")
    return lines


def continued(trainer: Trainer, folder: Path, vocabularies: Mapping[str, Vocabulary]) -> None:
    """Goes on from the checkpoint of another run's chosen epoch: weights, calibration, optimizers, ids that grow.

    Learning rates and decays are those of the new run's settings.

    Args:
        trainer: of the new run, before its first step.
        folder: of the other run, which has ended.
        vocabularies: of policy growing, as they are now: the rows of ids that came since begin as UNK's, without optimizer state.

    Raises:
        DataError: the run has not ended, its checkpoint is gone, or it is one of another network.
    """
    metrics = read_json(folder / "metrics.json")
    step = int(metrics["history"][metrics["chosen_epoch"] - 1]["step"])
    path = folder / CHECKPOINTS / checkpoint_name(step)
    if not path.exists():
        raise DataError(
            f"{path}: the checkpoint of the chosen epoch is gone; train with training.save_every=0 and training.keep above "
            "training.patience, or start without training.warm_optimizer",
            field="training.warm_optimizer",
        )
    state = load_checkpoint(path).state
    options = [[_plain_options(group) for group in optimizer.param_groups] for optimizer in trainer.optimizers]
    try:
        trainer.network.load(state["network"])
        for optimizer, content, groups in zip(trainer.optimizers, state["optimizers"], options, strict=True):
            optimizer.load_state_dict(optimizer_state(content))
            for group, given in zip(optimizer.param_groups, groups, strict=True):
                group.update(given)
    except (KeyError, TypeError, ValueError, RuntimeError, DataError) as error:
        raise DataError(f"{path}: is of another network: {error}", field="training.warm_optimizer") from error
    trainer.ranker.calibration.copy_(_network_of(folder)["calibration"])
    for owner, vocabulary in vocabularies.items():
        fresh = torch.from_numpy(fresh_ids(Vocabulary.load(folder / ENCODER / VOCABULARIES, owner), vocabulary))
        _begin_as_unknown(trainer.ranker, owner, fresh)
        _forget_state(trainer, owner, fresh)


def _plain_options(group: Mapping[str, object]) -> dict[str, object]:
    return {name: value for name, value in group.items() if name != "params"}


@torch.no_grad()
def _forget_state(trainer: Trainer, owner: str, ids: Tensor) -> None:
    """Zeros what optimizers remember of these ids."""
    for place in range(len(trainer.ranker.members)):
        tables = trainer.ranker.member(place).trunk.tables
        if owner not in tables.owners:
            continue
        table = tables.sizes[str(tables.owners[owner][1])]
        rows = ids + tables.first_row(owner) - 1 - PADDING
        if isinstance(table, RowTable):
            remembered = list(table.companions.values())
        else:
            weight: Tensor = table.weight  # type: ignore[assignment]
            states = [optimizer.state.get(weight, {}) for optimizer in trainer.optimizers]
            remembered = [
                one for state in states for one in state.values() if isinstance(one, Tensor) and one.dim() == 2
            ]
        for one in remembered:
            one.index_fill_(0, rows, 0)
