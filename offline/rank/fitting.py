"""Trains the network of one fit: both heads, every member, and finds epochs and calibration on held-out parts of train."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor

from data_exchange_center.list_metrics import hits_of, ndcg_at
from data_exchange_center.settings import Settings
from data_exchange_center.workspace import read_json
from offline.models.numbers import HEADS, Head
from offline.models.ranker import Member, NetworkConfig, Ranker, config_for
from offline.rank.feature_encoding import FittedEncoder
from offline.rank.fits import Fit
from offline.rank.s1_feature_engi import NORMALISATION_FILE, ROWS_FILE, lists_file
from offline.training.calibration import platt
from offline.training.dataset import FIT, VALIDATE, ChooseLists, LikeRows
from offline.training.loop import (
    CHOOSE_EPOCHS,
    Epoch,
    best_epoch,
    fit_choose,
    fit_like,
    optimizer_for,
    predict_choose,
    predict_like,
)
from offline.training.metrics import auc, logloss
from offline.training.reproducible import seed_everything

Optimizers = dict[str, torch.optim.Adam]
"""`<member>.<head>` -> the optimizer of its training."""

HELD_OUT_LISTS = 0.2  # of the users, for epochs and calibration of `choose`


@dataclass(frozen=True)
class FitData:
    """What a fit learns from."""

    rows: LikeRows
    lists: tuple[ChooseLists, ...]
    means: Tensor
    deviations: Tensor
    config: NetworkConfig


@dataclass(frozen=True)
class Plan:
    """What validation decided.

    Attributes:
        like_epochs, choose_epochs: how long each head learns.
        calibration: (slope, offset) per head.
    """

    like_epochs: int
    choose_epochs: int
    calibration: dict[Head, tuple[float, float]]


def load_fit(settings: Settings, fit: Fit, encoder: FittedEncoder, preset: str, **changes: Any) -> FitData:
    """Reads a fit's encoded data and prepares its network's configuration.

    Args:
        preset: of the settings' model. changes: options that differ from the preset's.
    """
    folder = fit.folder(settings)
    normalisation = load_file(folder / NORMALISATION_FILE)
    heads: tuple[Head, ...] = HEADS if read_json(folder / "engineering.json")["has_like"] else ("choose",)
    config = config_for(
        settings.rank.model, preset, encoder.rows, settings.rank.towers, encoder.id_types, heads, **changes
    )
    return FitData(
        LikeRows.load(folder / ROWS_FILE),
        tuple(ChooseLists.load(folder / lists_file(cut)) for cut in fit.lists),
        normalisation["means"],
        normalisation["deviations"],
        config,
    )


def new_ranker(encoder: FittedEncoder, data: FitData, seed: int) -> Ranker:
    """An untrained network with the fit's normalisation; the same seed gives the same weights."""
    torch.manual_seed(seed)
    ranker = Ranker(encoder.spec, data.config)
    for place in range(data.config.members):
        trunk = ranker.member(place).trunk
        trunk.means.copy_(data.means)
        trunk.deviations.copy_(data.deviations)
    return ranker


def find_plan(
    settings: Settings, encoder: FittedEncoder, data: FitData
) -> tuple[Plan, dict[str, list[Epoch]], dict[str, Tensor]]:
    """Learns on a part of train, watches the rest, and decides epochs and calibration.

    `like` is watched on the last part of each user's train rows, `choose` on the lists of some users.

    Returns:
        The plan, the curves of both heads, and the first member as `like` left it after all rows of the fit, from which
        `train_fit` can go on.
    """
    seed = _seed(settings, 0)
    member = new_ranker(encoder, data, settings.seed).member(0)
    curves: dict[str, list[Epoch]] = {"like": [], "choose": []}
    calibration: dict[Head, tuple[float, float]] = {head: (1.0, 0.0) for head in HEADS}
    like_epochs, choose_epochs = 0, 0
    if "like" in data.config.heads:
        seed_everything(seed, settings.rank.threads)
        curves["like"], calibration["like"] = _watch_like(settings, member, data.rows)
        like_epochs = best_epoch(curves["like"])
        member = new_ranker(encoder, data, settings.seed).member(0)
        seed_everything(seed, settings.rank.threads)
        fit_like(member, data.rows, data.rows.rows(FIT, VALIDATE), settings.rank, seed, like_epochs)
    learned = {name: tensor.clone() for name, tensor in member.state_dict().items()}
    if data.lists and len(data.lists[0]):
        seed_everything(seed, settings.rank.threads)
        curves["choose"], calibration["choose"] = _watch_choose(settings, member, data.lists)
        choose_epochs = best_epoch(curves["choose"])
    return Plan(like_epochs, choose_epochs, calibration), curves, learned


def train_fit(
    settings: Settings,
    encoder: FittedEncoder,
    data: FitData,
    plan: Plan,
    learned: dict[str, Tensor] | None = None,
    optimizers: Optimizers | None = None,
) -> tuple[Ranker, dict[str, list[Epoch]]]:
    """Trains every member on all rows and lists of the fit, as long as the plan says.

    Args:
        learned: the first member after `like`, when `find_plan` made it from the same data; saves learning it again.
        optimizers: filled with those that trained.

    Returns:
        The calibrated network and the first member's curves.
    """
    ranker = new_ranker(encoder, data, settings.seed)
    return ranker.eval(), learn(
        settings, ranker, data, plan, places_of(data.lists), {} if optimizers is None else optimizers, learned
    )


def learn(
    settings: Settings,
    ranker: Ranker,
    data: FitData,
    plan: Plan,
    places: Tensor,
    optimizers: Optimizers,
    learned: dict[str, Tensor] | None = None,
) -> dict[str, list[Epoch]]:
    """Trains every member of a network, which may have learned before.

    Args:
        places: int64 [P, 2], (group, user) of the lists that `choose` learns from.
        optimizers: to go on with; the missing ones are made and kept here.
        learned: as in `train_fit`.

    Returns:
        The first member's curves.
    """
    curves: dict[str, list[Epoch]] = {}
    for number in range(data.config.members):
        seed, member, like = _seed(settings, number), ranker.member(number), list[Epoch]()
        seed_everything(seed, settings.rank.threads)
        if learned is not None and number == 0:
            member.load_state_dict(learned)
        elif plan.like_epochs:
            optimizer = optimizers.setdefault(f"{number}.like", optimizer_for(member, "like", settings.rank))
            rows = data.rows.rows(FIT, VALIDATE)
            like = fit_like(member, data.rows, rows, settings.rank, seed, plan.like_epochs, optimizer=optimizer)
        choose = list[Epoch]()
        if plan.choose_epochs and len(places):
            seed_everything(seed, settings.rank.threads)
            optimizer = optimizers.setdefault(f"{number}.choose", optimizer_for(member, "choose", settings.rank))
            choose = fit_choose(
                member, data.lists, places, settings.rank, seed, plan.choose_epochs, optimizer=optimizer
            )
        curves = curves or {"like": like, "choose": choose}
    for head, (slope, offset) in plan.calibration.items():
        ranker.calibration[HEADS.index(head)] = torch.tensor([slope, offset])
    ranker.eval()
    return curves


def _seed(settings: Settings, member: int) -> int:
    return settings.seed * 1000 + member


def _watch_like(settings: Settings, member: Member, rows: LikeRows) -> tuple[list[Epoch], tuple[float, float]]:
    held_out = rows.rows(VALIDATE)
    labels = rows.labels[held_out].numpy()
    seen: list[np.ndarray] = []

    def judge() -> dict[str, float]:
        logits = predict_like(member, rows, held_out)
        seen.append(logits)
        probability = 1 / (1 + np.exp(-logits))
        return {"loss": logloss(labels, probability), "auc": auc(labels, probability)}

    epochs = fit_like(member, rows, rows.rows(FIT), settings.rank, settings.seed, settings.rank.epochs, judge)
    return epochs, platt(seen[best_epoch(epochs) - 1], labels)


def _watch_choose(
    settings: Settings, member: Member, lists: Sequence[ChooseLists]
) -> tuple[list[Epoch], tuple[float, float]]:
    places = places_of(lists)
    order = torch.randperm(len(places), generator=torch.Generator().manual_seed(settings.seed))
    count = max(1, int(len(places) * HELD_OUT_LISTS))
    held_out = places[order[:count]]
    learned = places[order[count:]] if len(places) > 1 else held_out  # a single list can only watch itself
    groups = [(group, held_out[held_out[:, 0] == cut, 1]) for cut, group in enumerate(lists)]
    labels = [group.labels[users].numpy() for group, users in groups]
    there = [(group.candidates[users] >= 0).numpy() for group, users in groups]
    seen: list[list[np.ndarray]] = []

    def judge() -> dict[str, float]:
        logits = [predict_choose(member, group, users) for group, users in groups]
        seen.append(logits)
        values = [
            ndcg_of(one[mask], truth[mask])
            for part in zip(logits, labels, there, strict=True)
            for one, truth, mask in zip(*part, strict=True)
        ]
        ndcg = float(np.mean(values))
        return {"loss": -ndcg, "ndcg50": ndcg}

    epochs = fit_choose(member, lists, learned, settings.rank, settings.seed, CHOOSE_EPOCHS, judge)
    best = seen[best_epoch(epochs) - 1]
    flat = np.concatenate([one[mask] for one, mask in zip(best, there, strict=True)])
    truth = np.concatenate([one[mask] for one, mask in zip(labels, there, strict=True)])
    return epochs, platt(flat, truth)


def ndcg_of(scores: np.ndarray, labels: np.ndarray) -> float:
    """nDCG@50 of one list, with the chosen candidates of the list as all there is to find."""
    ranked = np.argsort(-scores, kind="stable")
    return float(ndcg_at(hits_of(ranked, np.flatnonzero(labels)), int(labels.sum()), 50))


def places_of(lists: Sequence[ChooseLists]) -> Tensor:
    """int64 [P, 2]: (cut, user) of every list."""
    parts = [torch.empty(0, 2, dtype=torch.int64)]
    parts += [
        torch.stack([torch.full((len(group),), cut), torch.arange(len(group))], 1) for cut, group in enumerate(lists)
    ]
    return torch.cat(parts)
