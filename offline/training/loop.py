"""The training loop of both heads, and what they predict.

`like` learns trunk and head on exposed rows with binary cross entropy. `choose` then learns its own head on lists with a softmax
over the candidates, on top of the trunk as it is: what an id means comes from the exposed rows, of which there are far more.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from tqdm import tqdm

from data_exchange_center.settings import RankSettings
from offline.models.numbers import Head
from offline.models.ranker import Member
from offline.training.dataset import ChooseBatch, ChooseLists, LikeBatch, LikeRows, shuffled
from offline.training.optimizers import adam, rate_at

CHOOSE_USERS = 32  # lists a batch
UNCHOSEN = 128  # candidates of a list that a training step looks at
CHOOSE_EPOCHS = 12
PREDICT_ROWS, PREDICT_LISTS = 16_384, 64  # at a time


@dataclass(frozen=True)
class Epoch:
    """What one epoch measured; `validation` is what the caller's judge returned."""

    epoch: int
    train_loss: float
    validation: dict[str, float]


Judge = Callable[[], dict[str, float]]


def optimizer_for(member: Member, head: Head, settings: RankSettings) -> torch.optim.Adam:
    """The optimizer of one head's training: `like` moves the tables too."""
    if head == "like":
        tables = member.trunk.tables.parameters()
        return adam(tables, member.heads["like"].parameters(), settings.learning_rate, settings.embedding_weight_decay)
    return adam([], member.heads["choose"].parameters(), settings.learning_rate, 0.0)


def fit_like(
    member: Member,
    rows: LikeRows,
    places: Tensor,
    settings: RankSettings,
    seed: int,
    epochs: int,
    judge: Judge | None = None,
    optimizer: torch.optim.Adam | None = None,
) -> list[Epoch]:
    """Trains trunk and `like` head.

    Args:
        places: the rows to learn from.
        epochs: to train; the learning rate follows the schedule of `settings.epochs`, so that stopping at an epoch that
            validation picked repeats what validation saw.
        judge: measures after each epoch.
        optimizer: of `optimizer_for`, to go on with; by default a new one.
    """

    def loss(users: Tensor) -> Tensor:
        batch = rows.batch(users)
        return functional.binary_cross_entropy_with_logits(_like_logit(member, batch), batch.labels)

    optimizer = optimizer or optimizer_for(member, "like", settings)
    return _train(member, optimizer, loss, places, settings.batch_size, epochs, settings.epochs, seed, "like", judge)


def fit_choose(
    member: Member,
    lists: Sequence[ChooseLists],
    places: Tensor,
    settings: RankSettings,
    seed: int,
    epochs: int,
    judge: Judge | None = None,
    optimizer: torch.optim.Adam | None = None,
) -> list[Epoch]:
    """Trains the `choose` head; the trunk stays as it is.

    Args:
        lists: of one or more cuts. places: int64 [P, 2], (cut, user) of the lists to learn from.
        optimizer: as in `fit_like`.
    """

    def loss(chosen: Tensor) -> Tensor:
        total, count = torch.zeros(()), 0
        for cut, group in enumerate(lists):
            users = chosen[chosen[:, 0] == cut, 1]
            if len(users):
                batch = group.batch(users, UNCHOSEN)
                total = total + list_loss(_choose_logit(member, batch), batch.labels, batch.mask) * len(users)
                count += len(users)
        return total / max(count, 1)

    optimizer = optimizer or optimizer_for(member, "choose", settings)
    return _train(member, optimizer, loss, places, CHOOSE_USERS, epochs, CHOOSE_EPOCHS, seed, "choose", judge)


def list_loss(logits: Tensor, labels: Tensor, mask: Tensor) -> Tensor:
    """Softmax cross entropy over each list, averaged over its chosen candidates, then over lists. [B, N] each -> scalar."""
    log_share = functional.log_softmax(logits.masked_fill(~mask, -1e9), -1)
    chosen = labels * mask
    return -((log_share * chosen).sum(-1) / chosen.sum(-1).clamp(min=1)).mean()


def predict_like(member: Member, rows: LikeRows, places: Tensor) -> np.ndarray:
    """Uncalibrated logits, float32 [P]."""
    return _predict(member, (_like_logit(member, rows.batch(part)) for part in places.split(PREDICT_ROWS)))


def predict_choose(member: Member, lists: ChooseLists, users: Tensor) -> np.ndarray:
    """Uncalibrated logits, float32 [P, N]."""
    return _predict(member, (_choose_logit(member, lists.batch(part)) for part in users.split(PREDICT_LISTS)))


def _predict(member: Member, logits: Iterable[Tensor]) -> np.ndarray:
    member.eval()
    with torch.inference_mode():
        return torch.cat(list(logits)).numpy()


def _like_logit(member: Member, batch: LikeBatch) -> Tensor:
    return member.heads["like"](member.trunk.assemble(batch.inputs, batch.numbers))


def _choose_logit(member: Member, batch: ChooseBatch) -> Tensor:
    with torch.no_grad():
        assembled = member.trunk.assemble(batch.inputs, batch.numbers)
    return member.heads["choose"](assembled)


def _train(
    member: nn.Module,
    optimizer: torch.optim.Optimizer,
    loss: Callable[[Tensor], Tensor],
    places: Tensor,
    batch_size: int,
    epochs: int,
    longest: int,
    seed: int,
    name: str,
    judge: Judge | None,
) -> list[Epoch]:
    generator = torch.Generator().manual_seed(seed)
    rates = [group["lr"] for group in optimizer.param_groups]
    steps, step, done = longest * -(-len(places) // batch_size), 0, []
    for epoch in tqdm(range(1, epochs + 1), desc=f"{name} epochs", leave=False):
        member.train()
        total = 0.0
        for batch in shuffled(places, batch_size, generator):
            for group, rate in zip(optimizer.param_groups, rates, strict=True):
                group["lr"] = rate * rate_at(step, steps)
            optimizer.zero_grad(set_to_none=True)
            value = loss(batch)
            value.backward()
            optimizer.step()
            total, step = total + value.item() * len(batch), step + 1
        done.append(Epoch(epoch, total / len(places), judge() if judge else {}))
        if judge and _stopped_improving(done):
            break
    member.eval()
    return done


PATIENCE = 2  # epochs without a better validation loss


def best_epoch(epochs: Sequence[Epoch]) -> int:
    """The epoch (from 1) with the smallest validation `loss`."""
    return min(epochs, key=lambda one: one.validation["loss"]).epoch


def _stopped_improving(done: Sequence[Epoch]) -> bool:
    return done[-1].epoch - best_epoch(done) >= PATIENCE
