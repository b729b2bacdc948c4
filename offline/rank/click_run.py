"""A training run of a click ranker, from settings to a folder that holds everything about it.

config.json           its settings                     feature_spec.json   the scene's features
encoder/              what was fitted on train          checkpoints/        where it can go on from
epochs/epoch-0001/    the network after each epoch      network/            the chosen one, calibrated
                      (with an encoder of its own where ids grow; training's own is then in encoder-growing/)
predictions/          labels and probabilities          log.jsonl           a line per interval and per epoch
metrics.json          results, written last             curves.png          losses and AUC
"""

from __future__ import annotations

import logging
import math
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import torch

from data_exchange_center.errors import DataError, SettingsError
from data_exchange_center.feature_selection import selected
from data_exchange_center.feature_spec import FeatureSpec, load_spec
from data_exchange_center.growing_features import growing_owners, with_policy
from data_exchange_center.validation import validated
from data_exchange_center.workspace import atomic_folder, read_json, write_json
from offline.figures import save_figure
from offline.models.initializers import begin_by_xavier
from offline.models.numbers import HEADS
from offline.models.ranker import NetworkConfig, Ranker
from offline.models.registry import options_of, options_to_json
from offline.rank.click_data import EncodedParts, RawRows, fitted_encoder
from offline.rank.click_scores import Scores, logits_of, save_scores, scored
from offline.rank.feature_encoding import FittedEncoder
from offline.rank.growing_run import ENCODER, save_frozen, set_up_tables
from offline.rank.warm_start import (
    continued,
    given_vocabularies,
    growing_vocabularies,
    grown_encoder,
    save_level,
    warm_started,
)
from offline.reading.files import find_files
from offline.training.boosting import boosted_trees
from offline.training.calibration import platt
from offline.training.config import PARTS, Part, TrainConfig
from offline.training.ctr_data import Columns
from offline.training.curves import training_figure
from offline.training.distributed import Processes, joined
from offline.training.trainer import EPOCHS, LOG, Save, Trainer, best_epoch, device_of, epoch_name, read_log

log = logging.getLogger("marquee")

CONFIG, SPEC, NETWORK = "config.json", "feature_spec.json", "network"
TRAINING_ENCODER = "encoder-growing"  # passes on the raw ids of features that grow
METRICS, CURVES, PREDICTIONS = "metrics.json", "curves.png", "predictions"
MAY_CHANGE = (  # between a run and its resumption: nothing here decides a weight
    "training.output",
    "training.log_every",
    "training.save_every",
    "training.keep",
    "training.curves",
    "data.workers",
    "data.prefetch",
    "data.prepared",
    "distributed.patience_minutes",
    "inference.batch_size",
)


@dataclass(frozen=True)
class OpenRun:
    """What a run's folder holds.

    Attributes:
        ranker: the chosen network, ready for inference.
        rows: reads raw rows as the run does.
        encoder: folder of what encodes for the network.
    """

    folder: Path
    config: TrainConfig
    spec: FeatureSpec
    ranker: Ranker
    rows: RawRows
    encoder: Path

    def parts(self) -> EncodedParts:
        """The run's rows, encoded."""
        return EncodedParts(self.config, self.rows, self.encoder, _prepared(self.config, self.folder))


def open_run(folder: Path, *, epoch: int | None = None, overrides: Iterable[str] = ()) -> OpenRun:
    """Opens a run.

    Args:
        folder: of the run.
        epoch: the network after that epoch, not calibrated; the chosen one when None.
        overrides: of its settings, e.g. "data.test=[new.orc]".

    Raises:
        DataError: it is no run, has no such epoch, or has not ended.
    """
    config = read_config(folder).changed(*overrides)
    spec = _read_spec(folder)
    network = folder / (NETWORK if epoch is None else f"{EPOCHS}/{epoch_name(epoch)}")
    if not network.exists():
        there = sorted(path.name for path in (folder / EPOCHS).glob("epoch-*"))
        wanted = "the run has not ended; resume it" if epoch is None else f"no epoch {epoch}; there are {there}"
        raise DataError(f"{folder}: {wanted}")
    own = network / ENCODER
    encoder = own if own.exists() else folder / ENCODER
    return OpenRun(folder, config, spec, Ranker.load(network), RawRows(config, spec), encoder)


def read_config(folder: Path) -> TrainConfig:
    """The settings of a run; DataError when the folder holds none."""
    if not (folder / CONFIG).exists():
        raise DataError(f"{folder}: no run lies here ({CONFIG} is missing); train.py makes one")
    return validated(TrainConfig, read_json(folder / CONFIG), str(folder / CONFIG))


def train_run(config: TrainConfig, *, resume: bool = False) -> dict[str, Any]:
    """Trains a click ranker, picks its epoch on validation, calibrates it there, and judges it on test once.

    Args:
        resume: go on with the run in the output folder; begin when there is none.

    Returns:
        What metrics.json holds: epochs, metrics per part, parameters, speed.

    Raises:
        SettingsError: the folder holds a run and `resume` is false, or one with other settings.
        DataError, SpecError: the rows or features cannot be used.
    """
    patience = timedelta(minutes=config.distributed.patience_minutes)
    with joined(device_of(config.training.device), patience) as processes:
        return _train(config, resume, processes)


def _train(config: TrainConfig, resume: bool, processes: Processes) -> dict[str, Any]:
    folder = Path(config.training.output).expanduser()
    with processes.first_alone():
        if processes.is_first:
            _begin(folder, config, resume)
        if (folder / METRICS).exists():
            log.info("  the run in %s has ended already", folder)
            return dict(read_json(folder / METRICS))
        parts = _prepared_parts(folder, config)
    if config.trees.count and not Columns.of(parts.encoder.spec).numbers:
        raise SettingsError(
            "trees.count: trees ask about numbers, and the run's features have none", field="trees.count"
        )
    ranker = new_ranker(config, parts)
    training = config.training
    batches = math.ceil(parts.train_rows() / training.batch_size)
    steps = training.epochs * math.ceil(batches / training.accumulate)
    judge = (lambda: judged(config, parts, ranker, "validation").metrics) if config.data.validation else None
    vocabularies = {name: parts.encoder.vocabularies[name] for name in growing_vocabularies(parts.rows.spec)}
    save: Save = partial(save_frozen, parts.encoder) if config.embeddings.grow else partial(save_level, vocabularies)
    if training.warm_start and not training.warm_optimizer:
        warm_started(ranker, Path(training.warm_start))
    epochs = parts.epochs(processes)
    trainer = Trainer(ranker, config, epochs, folder, steps=steps, judge=judge, save=save, processes=processes)
    resumed = resume and trainer.resume()
    if training.warm_optimizer and not resumed:
        continued(trainer, Path(training.warm_start), vocabularies)
    history = trainer.train()
    chosen = best_epoch(history, training.metric)
    if not processes.is_first:
        return {"output": str(folder), "epochs": len(history), "chosen_epoch": chosen}
    result = _finish(folder, config, parts, trainer, chosen)
    write_json(folder / METRICS, result)
    return result


def _prepared_parts(folder: Path, config: TrainConfig) -> EncodedParts:
    """The run's rows, with everything made that several processes could not make at once."""
    spec, prepared = _spec_of(folder, config), _prepared(config, folder)
    rows = RawRows(config, spec, _growing(config, spec))
    parts = EncodedParts(config, rows, _encoder_of(folder, config, rows, prepared), prepared)
    for part in PARTS if config.data.cache else ():
        if config.data.paths(part):  # type: ignore[arg-type]
            parts.cached(part)  # type: ignore[arg-type]
    return parts


def new_ranker(config: TrainConfig, parts: EncodedParts) -> Ranker:
    """An untrained network; the same seed gives the same weights.

    Raises:
        SettingsError: no such model, preset or option, or options that no network can be built with.
    """
    model, encoder = config.model, parts.encoder
    torch.manual_seed(config.training.seed)
    options = options_to_json(options_of(model.name, model.preset, model.options))
    network = NetworkConfig(model.name, options, encoder.rows, model.members, encoder.id_types, ("like",))
    try:
        made = Ranker(encoder.spec, network)
        if model.initializer == "xavier_normal":
            begin_by_xavier(made)
        set_up_tables(made, config)
        _tried(made)
        return made
    except (TypeError, ValueError, IndexError, RuntimeError, ArithmeticError, MemoryError, AssertionError) as error:
        raise SettingsError(f"model {model.name!r} cannot be built with {model.options}: {error}") from error


def _tried(ranker: Ranker) -> None:
    """Scores two rows of padding, so that options that do not fit together show before training."""
    columns = Columns.of(ranker.spec)
    ids, numbers = torch.zeros(2, len(columns.ids), dtype=torch.int32), torch.zeros(2, columns.width)
    batch = columns.batch(ids, numbers, torch.zeros(2))
    with torch.inference_mode():
        ((_, logits),) = logits_of(ranker, [batch], torch.device("cpu"))
    if logits.shape != (2,):
        raise ValueError(f"two rows give logits of shape {logits.shape}")


def draw_curves(folder: Path, config: TrainConfig, history: list[dict[str, Any]], chosen: int) -> None:
    """Writes `curves.png` of a run.

    Args:
        history: a line per epoch. chosen: the epoch that was picked.
    """
    save_figure(folder / CURVES, training_figure(read_log(folder / LOG), history, chosen, config.training.metric))


def judged(config: TrainConfig, parts: EncodedParts, ranker: Ranker, part: Part) -> Scores:
    """Labels and probabilities of a part, in the order of its files, and its metrics."""
    groups = parts.groups(part, config.training.group) if config.training.group else None
    return scored(ranker, parts.batches(part), device_of(config.training.device), groups)


def _begin(folder: Path, config: TrainConfig, resume: bool) -> None:
    if not (folder / CONFIG).exists():
        _check_names(config)
        write_json(folder / CONFIG, config.model_dump(mode="json"))
        return
    if not resume:
        raise SettingsError(
            f"{folder} holds a run already; go on with it by --resume, or set another training.output",
            field="training.output",
        )
    before, now = (_flat(one.model_dump(mode="json")) for one in (read_config(folder), config))
    changed = [name for name in sorted({*before, *now}) if before.get(name) != now.get(name)]
    changed = [name for name in changed if name not in MAY_CHANGE]
    if changed:
        lines = ", ".join(f"{name} was {before.get(name)!r} and is {now.get(name)!r}" for name in changed)
        raise SettingsError(f"{folder} holds a run with other settings: {lines}", field=changed[0])


def _check_names(config: TrainConfig) -> None:
    """Refuses names of models, specs and files that do not exist while there is no run yet that would stand in the way."""
    options_of(config.model.name, config.model.preset, config.model.options)
    if not config.training.warm_start:
        load_spec(config.features.spec)
    for part in () if config.data.reader else PARTS:  # a reader of one's own may read from anywhere
        if given := config.data.paths(part):  # type: ignore[arg-type]
            find_files(given)


def _flat(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in tree.items():
        flat |= _flat(value, f"{prefix}{name}.") if isinstance(value, dict) and value else {f"{prefix}{name}": value}
    return flat


def _prepared(config: TrainConfig, folder: Path) -> Path:
    return Path(config.data.prepared).expanduser() if config.data.prepared else folder / "prepared"


def _spec_of(folder: Path, config: TrainConfig) -> FeatureSpec:
    """The scene's features, as they were when the run began; a warm start takes those of the run it starts from."""
    if not (folder / SPEC).exists():
        start = config.training.warm_start
        spec = _read_spec(Path(start)) if start else load_spec(config.features.spec)
        spec = with_policy(spec, _growing(config, spec), "learned")  # which their vocabularies are in the end
        write_json(folder / SPEC, spec.model_dump(mode="json"))
    return _read_spec(folder)


def _growing(config: TrainConfig, spec: FeatureSpec) -> list[str]:
    """Owners, among the features that the run uses, of the vocabularies that grow."""
    return growing_owners(selected(spec, config.features.select), config.embeddings.grow)


def _read_spec(folder: Path) -> FeatureSpec:
    return validated(FeatureSpec, read_json(folder / SPEC), str(folder / SPEC))


def _encoder_of(folder: Path, config: TrainConfig, rows: RawRows, prepared: Path) -> Path:
    """The run's encoder: fitted on its training rows, or that of the run it starts from, which gives its weights their meaning."""
    own = folder / (TRAINING_ENCODER if config.embeddings.grow else ENCODER)
    if not own.exists():
        start = config.training.warm_start
        given = given_vocabularies(rows.spec, config.features.vocabularies)
        made = Path(start) / own.name if start else fitted_encoder(rows, prepared, given)
        if not made.exists():
            raise DataError(
                f"{made}: not there; training.warm_start names the folder of a run", field="training.warm_start"
            )
        if start and given:
            with atomic_folder(own) as temporary:
                grown_encoder(FittedEncoder.load(made, rows.spec), given).save(temporary)
        else:
            _copied(made, own)
    return own


def _copied(folder: Path, target: Path) -> None:
    with atomic_folder(target) as temporary:
        shutil.copytree(folder, temporary, dirs_exist_ok=True)


def _add_trees(ranker: Ranker, config: TrainConfig, parts: EncodedParts) -> None:
    """Trees on the numbers of the training rows; their target encodings are out of fold, as the network saw them."""
    rows, training = parts.cached("train").batch(slice(None)), config.training
    numbers, labels = rows.numbers.item.numpy(), rows.labels.numpy()
    trees = boosted_trees(numbers, labels, config.trees, seed=training.seed, threads=training.threads)
    ranker.add_trees(trees.to(ranker.calibration.device), config.trees.share)


def _finish(folder: Path, config: TrainConfig, parts: EncodedParts, trainer: Trainer, chosen: int) -> dict[str, Any]:
    """Adds trees to the chosen epoch's network, calibrates on validation, judges every part, writes what the run leaves."""
    if config.embeddings.grow:
        shutil.rmtree(folder / ENCODER, ignore_errors=True)  # of a run that was killed just here
        _copied(folder / EPOCHS / epoch_name(chosen) / ENCODER, folder / ENCODER)
        parts = EncodedParts(config, RawRows(config, _read_spec(folder)), folder / ENCODER, parts.prepared)
    ranker = Ranker.load(folder / EPOCHS / epoch_name(chosen)).to(trainer.device)
    ranker.eval()
    if config.trees.count:
        _add_trees(ranker, config, parts)
    validation = judged(config, parts, ranker, "validation") if config.data.validation else None
    if validation and config.training.calibrate:
        slope, offset = platt(validation.logits, validation.labels)
        ranker.calibration[HEADS.index("like")] = torch.tensor([slope, offset])
    metrics: dict[str, dict[str, Any]] = {}
    for part in PARTS:
        if not config.data.paths(part):  # type: ignore[arg-type]
            continue
        scores = judged(config, parts, ranker, part)  # type: ignore[arg-type]
        metrics[part] = scores.metrics
        if part != "train":
            save_scores(folder / PREDICTIONS / f"{part}.parquet", scores)
    ranker.cpu().save(folder / NETWORK)
    progress, history = trainer.progress, trainer.progress.history
    if config.training.curves:
        draw_curves(folder, config, history, chosen)
    learned = sum(line["rows"] for line in history)
    return {
        "output": str(folder),
        "model": config.model.name,
        "preset": config.model.preset,
        "epochs": len(history),
        "chosen_epoch": chosen,
        "chosen_by": f"validation {config.training.metric}" if config.data.validation else "the last epoch",
        "train_loss": history[chosen - 1]["train_loss"],
        "final_train_loss": history[-1]["train_loss"],
        "metrics": metrics,
        "calibration": ranker.calibration[HEADS.index("like")].tolist(),
        "calibrated_on": "validation" if validation and config.training.calibrate else None,
        "parameters": sum(parameter.numel() for parameter in ranker.parameters()),
        "trees": ranker.trees.count if ranker.trees else 0,
        "rows": {"train": parts.train_rows()}
        | {part: int(metrics[part]["rows"]) for part in metrics if part != "train"},
        "steps": progress.step,
        "samples_per_s": round(learned / max(progress.seconds, 1e-9), 1),
        "samples_per_cpu_s": round(learned / max(progress.cpu_seconds, 1e-9), 1),
        "train_seconds": round(progress.seconds, 3),
        "history": history,
    }
