"""Trains a click ranker: epochs over batches, with checkpoints that it can go on from to the last bit.

    run = Trainer(ranker, config, epochs, folder, steps=1200, judge=judge)
    run.resume()          # goes on from the newest whole checkpoint; optional
    history = run.train()

Everything that decides what comes next is in a checkpoint: weights, optimizers, random generators, the position in the data, the
counters of the epoch. On a CPU, with the same number of threads, a run that was killed and resumed ends with the same weights and
losses as one that was never stopped.
"""

from __future__ import annotations

import json
import logging
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from tqdm import tqdm

from data_exchange_center.errors import DataError, SettingsError
from offline.models.growing import GrowingIds
from offline.models.kernels import multiplies_bf16
from offline.models.ranker import Ranker
from offline.training.batches import BatchSource, Epochs, grouped, moved
from offline.training.checkpoint import Checkpoint, newest_checkpoint, optimizer_state, save_checkpoint
from offline.training.config import TrainConfig
from offline.training.dataset import LikeBatch
from offline.training.distributed import ALONE, Processes
from offline.training.freed_memory import keep_freed_memory
from offline.training.optimizers import rate_at
from offline.training.reproducible import seed_everything
from offline.training.sharded_tables import ShardedNetwork
from offline.training.streaming_auc import StreamingAuc
from offline.training.whole_network import WholeNetwork

log = logging.getLogger("marquee")

CHECKPOINTS, EPOCHS, LOG = "checkpoints", "epochs", "log.jsonl"
PENDING = 64  # batches whose logits wait to be counted
BETTER = {"auc": 1.0, "gauc": 1.0, "logloss": -1.0}  # sign of a metric of which more is better

Judge = Callable[[], Mapping[str, float | None]]
Save = Callable[[Ranker, Path], object]


@dataclass
class Progress:
    """How far a run is.

    Attributes:
        epoch: the one being learned, from 1. step: optimizer steps done, in all epochs.
        rows: learned from in this epoch. position: in its data; None at its start.
        logged_rows, logged_seconds: `rows` and `seconds` when the last line of the log was written.
        history: a line per finished epoch: epoch, step, train_loss, train_auc, train_auc_bound and `validation_…`.
        seconds, cpu_seconds: spent learning, validation and checkpoints not counted.
    """

    epoch: int = 1
    step: int = 0
    rows: int = 0
    logged_rows: int = 0
    logged_seconds: float = 0.0
    position: dict[str, Any] | None = None
    history: list[dict[str, Any]] = field(default_factory=list)
    seconds: float = 0.0
    cpu_seconds: float = 0.0


class Trainer:
    """One run.

    Args:
        ranker: the network; its members learn side by side from the same batches.
        config: of the run.
        epochs: gives each epoch's batches, of which each process gets its part.
        folder: where checkpoints, the networks of finished epochs and the log go.
        steps: optimizer steps of all epochs, for the schedule; 0 when not known (then it must be constant).
        judge: measures validation after each epoch.
        save: writes the network of an epoch into a folder.
        processes: that learn together, each from its share of every batch.

    Raises:
        SettingsError: the device is not there, the schedule needs to know the number of steps, or TorchRec is missing.
    """

    def __init__(
        self,
        ranker: Ranker,
        config: TrainConfig,
        epochs: Epochs,
        folder: Path,
        *,
        steps: int = 0,
        judge: Judge | None = None,
        save: Save = Ranker.save,
        processes: Processes = ALONE,
    ) -> None:
        if config.optimizer.schedule != "constant" and steps <= 0:
            raise SettingsError(
                f"optimizer.schedule {config.optimizer.schedule} needs to know how many rows there are; use constant",
                field="optimizer.schedule",
            )
        self.config, self.epochs, self.folder, self.steps, self.judge = config, epochs, folder, steps, judge
        self.save, self.processes = save, processes
        self.device = device_of(config.training.device)
        self.bf16 = bf16_pays(config.training.bf16, self.device)
        self.ranker = ranker.to(self.device)
        self.members = [ranker.member(place) for place in range(len(ranker.members))]
        sharded = config.distributed.tables == "sharded"
        self.network = (ShardedNetwork if sharded else WholeNetwork)(self.ranker, config, processes)
        self.optimizers, self.growing = self.network.optimizers, self.network.growing
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group.setdefault("initial_lr", group["lr"])
        self.progress = Progress()
        self.auc = StreamingAuc()
        self.loss = torch.zeros((), dtype=torch.float64, device=self.device)  # summed over the epoch's rows
        self.logged_loss = torch.zeros((), dtype=torch.float64)
        self._pending: list[tuple[Tensor, Tensor]] = []
        training = config.training
        keep_freed_memory()
        seed_everything(training.seed + processes.rank, training.threads, deterministic=self.device.type == "cpu")

    def resume(self) -> bool:
        """Goes back to the newest whole checkpoint; false when there is none.

        Raises:
            DataError: the checkpoint is of another network.
        """
        with self.processes.first_alone():  # which removes what is torn
            found = newest_checkpoint(self.folder / CHECKPOINTS)
            if self.processes.is_first:
                self._cut_log(found.step if found else -1)
        if found is None:
            return False
        state = found.state
        try:
            self.network.load(state["network"])
            for optimizer, content in zip(self.optimizers, state["optimizers"], strict=True):
                optimizer.load_state_dict(optimizer_state(content))
            self.progress = Progress(**state["progress"])
            self.auc.counts.copy_(state["auc"])
            self.loss.copy_(state["loss"])
            self.logged_loss.copy_(state["logged_loss"])
            torch.set_rng_state(state["generator"])
            if self.device.type == "cuda":
                torch.cuda.set_rng_state(state["cuda_generator"])
            if not self.processes.is_first:  # sums were saved of all processes; the first goes on with them
                self.auc.reset()
                self.loss.zero_()
                torch.manual_seed(self.config.training.seed + self.processes.rank + self.progress.step)
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            raise DataError(f"checkpoint {found.step} of {self.folder} is of another network: {error}") from error
        log.info("  resumed at step %d of epoch %d", self.progress.step, self.progress.epoch)
        return True

    def train(self) -> list[dict[str, Any]]:
        """Learns all epochs that are left, or until validation has not become better for `patience` epochs.

        Returns:
            The history: one line per epoch, also in the log.
        """
        training, progress = self.config.training, self.progress
        while progress.epoch <= training.epochs and not self._stopped():
            source = self.epochs(progress.epoch)
            if progress.position is not None:
                source.restore(progress.position)
            self._learn(source)
            self._finish_epoch()
        return progress.history

    def _learn(self, source: BatchSource) -> None:
        """The rest of one epoch."""
        training, progress = self.config.training, self.progress
        self.ranker.train()
        started, cpu, shown = time.perf_counter(), time.process_time(), progress.rows
        with tqdm(desc=f"epoch {progress.epoch}", unit=" rows", unit_scale=True, initial=shown, leave=False) as bar:
            for group in grouped(source, training.accumulate):
                self._step(group)
                logs = progress.step % training.log_every == 0
                saves = bool(training.save_every) and progress.step % training.save_every == 0
                if not (logs or saves):
                    continue
                progress.seconds += time.perf_counter() - started
                progress.cpu_seconds += time.process_time() - cpu
                if logs:
                    bar.update(progress.rows - shown)
                    shown = progress.rows
                    self._log_step(bar)
                if saves:
                    progress.position = source.state()
                    self._save()
                started, cpu = time.perf_counter(), time.process_time()
        progress.seconds += time.perf_counter() - started
        progress.cpu_seconds += time.process_time() - cpu

    def _step(self, group: list[LikeBatch]) -> None:
        """One optimizer step on some batches, equal to one on a single batch of all their rows."""
        optimizers = self.optimizers
        if self.config.optimizer.schedule == "cosine":
            factor = rate_at(self.progress.step, self.steps)
            for optimizer in optimizers:
                for parameters in optimizer.param_groups:
                    parameters["lr"] = parameters["initial_lr"] * factor
        for optimizer in optimizers:
            optimizer.zero_grad(
                set_to_none=True
            )  # where sharded tables take over the rate, which they need in backward
        rows = int(self.processes.total(torch.tensor(sum(len(batch.labels) for batch in group))))
        for given in group:
            if not (len(given.labels) or self.network.together):
                continue
            batch = moved(given, self.device)
            share = len(batch.labels) / rows
            loss = self._loss(batch)
            (loss if share == 1.0 else loss * share).backward()
            self.loss += loss.detach() * (len(batch.labels) / len(self.members))
        self.network.add_up()
        for optimizer in optimizers:
            optimizer.step()
        for growing in self.growing:
            growing.tick("step")
        self.progress.step += 1
        self.progress.rows += rows
        if len(self._pending) >= PENDING:
            self._count()

    def _loss(self, batch: LikeBatch) -> Tensor:
        """Binary cross entropy, summed over the members: each has parameters of its own, so each learns as if alone."""
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16):
            logits = [
                member.heads["like"](member.trunk.assemble(batch.inputs, batch.numbers)) for member in self.members
            ]
        logits = [logit.float() for logit in logits]
        self._pending.append((batch.labels, (sum(logits[1:], logits[0]) / len(logits)).detach()))
        over = "mean" if len(batch.labels) else "sum"  # of no rows: zero
        losses = [functional.binary_cross_entropy_with_logits(logit, batch.labels, reduction=over) for logit in logits]
        return sum(losses[1:], losses[0])

    def _count(self) -> None:
        """Counts the logits that wait."""
        if self._pending:
            labels, logits = zip(*self._pending, strict=True)
            self.auc.update(torch.cat(labels), torch.cat(logits))
            self._pending.clear()

    def _finish_epoch(self) -> None:
        progress = self.progress
        if not progress.rows:
            raise DataError("there is no row to learn from: data.train is empty, or every row was skipped")
        self._count()
        auc = StreamingAuc()
        auc.counts = self.processes.total(self.auc.counts)
        streamed = auc.result()
        line: dict[str, Any] = {
            "epoch": progress.epoch,
            "step": progress.step,
            "train_loss": self.processes.total(self.loss).item() / progress.rows,
            "train_auc": _plain(streamed.value),
            "train_auc_bound": _plain(streamed.bound),
            "rows": progress.rows,
        }
        if not math.isfinite(line["train_loss"]):
            raise DataError(f"epoch {progress.epoch}: the loss is not finite; use a smaller learning rate or more reg")
        self.ranker.eval()
        for growing in self.growing:
            growing.tick("epoch")
        if self.growing:
            line["ids"] = growth(self.growing)
        plain = self.network.plain()
        if plain is not None:
            self.save(plain, self.folder / EPOCHS / epoch_name(progress.epoch))
        if self.judge:
            line |= {f"validation_{name}": value for name, value in self.judge().items()}
        progress.history.append(line)
        self._write_log(line)
        progress.epoch, progress.rows, progress.logged_rows, progress.position = progress.epoch + 1, 0, 0, None
        self.auc.reset()
        self.loss.zero_()
        self.logged_loss.zero_()
        self._save()

    def _stopped(self) -> bool:
        training, history = self.config.training, self.progress.history
        if not training.patience or not history:
            return False
        return int(history[-1]["epoch"]) - best_epoch(history, training.metric) >= training.patience

    def _save(self) -> None:
        self._count()
        state = {
            "network": self.network.state(),
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
            "progress": asdict(self.progress),
            "auc": self.processes.total(self.auc.counts),
            "loss": self.processes.total(self.loss),
            "logged_loss": self.logged_loss,
            "generator": torch.get_rng_state(),
        }
        if self.device.type == "cuda":
            state["cuda_generator"] = torch.cuda.get_rng_state()
        if self.processes.is_first:
            save_checkpoint(self.folder / CHECKPOINTS, Checkpoint(self.progress.step, state), self.config.training.keep)

    def _log_step(self, bar: tqdm[Any]) -> None:
        progress = self.progress
        rows, loss = progress.rows - progress.logged_rows, self.processes.total(self.loss).cpu()
        mean = (loss - self.logged_loss).item() / rows
        speed = rows / max(progress.seconds - progress.logged_seconds, 1e-9)
        self.logged_loss, progress.logged_rows, progress.logged_seconds = loss.clone(), progress.rows, progress.seconds
        if not math.isfinite(mean):
            raise DataError(f"step {progress.step}: the loss is not finite; use a smaller learning rate or more reg")
        rates = {group["lr"] for optimizer in self.optimizers for group in optimizer.param_groups}
        self._write_log(
            {
                "step": progress.step,
                "epoch": progress.epoch,
                "loss": mean,
                "samples_per_s": round(speed, 1),
                "learning_rate": max(rates),
            }
        )
        bar.set_postfix(loss=f"{mean:.4f}", refresh=False)

    def _write_log(self, line: dict[str, Any]) -> None:
        if not self.processes.is_first:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / LOG).open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")

    def _cut_log(self, step: int) -> None:
        """Drops the lines of steps that will be made again."""
        path = self.folder / LOG
        if path.exists():
            kept = [line for line in read_log(path) if line["step"] <= step]
            path.write_text("".join(json.dumps(line) + "\n" for line in kept), encoding="utf-8")


def device_of(name: str) -> torch.device:
    """The device that a setting names.

    Raises:
        SettingsError: cuda is asked for and there is none.
    """
    there = torch.cuda.is_available()
    if name == "cuda" and not there:
        raise SettingsError("training.device is cuda, and torch sees no GPU; use auto or cpu", field="training.device")
    return torch.device("cuda" if there and name != "cpu" else "cpu")


def bf16_pays(asked: bool, device: torch.device) -> bool:
    """Whether to learn in bfloat16; where the CPU does not multiply it, a run that asks for it is told so and takes float32."""
    if asked and device.type == "cpu" and not multiplies_bf16():
        log.warning("  training.bf16: this CPU has no bfloat16 products; learning in float32, which is faster here")
        return False
    return asked


def growth(growing: list[GrowingIds]) -> dict[str, int]:
    """What all growing maps hold and have done since the beginning; see growing.Counts."""
    counts = [asdict(one.counts(name)) for one in growing for name in one.policies]
    return {name: sum(each[name] for each in counts) for name in counts[0]}


def epoch_name(epoch: int) -> str:
    """Folder of the network as an epoch left it."""
    return f"epoch-{epoch:04d}"


def best_epoch(history: list[dict[str, Any]], metric: str) -> int:
    """The epoch (from 1) with the best validation metric, the first of equals; the last one when nothing was validated."""
    measured = [line for line in history if line.get(f"validation_{metric}") is not None]
    if not measured:
        return int(history[-1]["epoch"])
    return int(max(measured, key=lambda line: BETTER[metric] * line[f"validation_{metric}"])["epoch"])


def read_log(path: Path) -> list[dict[str, Any]]:
    """Lines of a run's log; the last one may have been cut off by a crash, and is left out then."""
    lines = []
    for text in path.read_text(encoding="utf-8").splitlines():
        try:
            lines.append(json.loads(text))
        except json.JSONDecodeError:
            break
    return lines


def _plain(value: float) -> float | None:
    return value if math.isfinite(value) else None
