"""A scene of single rows with a label, trained by offline/rank: the repair shop, or another with a feature spec and a YAML."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from datetime import date as Date
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from data_exchange_center.errors import SettingsError
from data_exchange_center.feature_spec import load_spec
from data_exchange_center.ready_rows import grown_vocabularies, known_ids, raw_columns_of, ready_rows
from data_exchange_center.settings import ROOT, Settings
from data_exchange_center.tables import cast_column
from data_exchange_center.vocabulary import Vocabulary
from data_exchange_center.workspace import Workspace
from offline.incremental.scene import Vocabularies
from offline.rank.click_run import ENCODER, open_run, train_run
from offline.rank.click_scores import logits_of
from offline.rank.export import export_run
from offline.rank.feature_encoding import VOCABULARIES, FittedEncoder
from offline.rank.warm_start import growing_vocabularies
from offline.release.s2_pack_scorer import pack_scorer
from offline.text.sentence_model import open_text_encoder
from offline.text.vector_cache import CachedVectors
from offline.training.config import TrainConfig, digest, load_config
from offline.training.ctr_data import EncodedRows
from offline.training.trainer import device_of


class ClickScene:
    """See scene.Scene.

    Args:
        settings: `incremental.config` names the YAML of the first training, whose files and output are the job's.
        vectors: of texts; the store's own when None.
    """

    def __init__(self, settings: Settings, vectors: CachedVectors | None = None) -> None:
        self.settings, self.name, self._given = settings, settings.scene, vectors
        chosen = settings.incremental.config
        file = Path(chosen) if chosen else ROOT / "docs" / "examples" / f"{self.name}.yaml"
        fixed = {
            "data.folder": "",
            "data.test": [],
            "training.seed": settings.seed,
            "features.spec": settings.features.spec,
        }
        self.config = load_config(file).with_values(**fixed)
        self.spec = load_spec(self.config.features.spec)
        if self.config.optimizer.schedule != "constant" or self.config.training.save_every:
            raise SettingsError(
                f"{file}: the daily job goes on from checkpoints at the end of epochs, at a constant rate: "
                "set optimizer.schedule=constant and training.save_every=0",
                field="incremental.config",
            )
        named = [name.strip() for name in settings.incremental.segments.split(",") if name.strip()]
        learned = [f.name for f in self.spec.inputs if f.vocabulary and f.vocabulary.policy == "learned"]
        self.segments: Sequence[str] = named or learned

    @property
    def fingerprint(self) -> str:
        incremental = self.settings.incremental.model_dump(
            mode="json", include={"learning_rate", "batch_size", "epochs"}
        )
        return digest([self.config.model_dump(mode="json"), self.spec.model_dump(mode="json"), incremental])

    @cached_property
    def _vectors(self) -> CachedVectors:
        if self._given is not None:
            return self._given
        return CachedVectors(open_text_encoder(self.settings), Workspace(self.settings).offline / "text_vectors")

    def check(self, rows: pa.Table, date: str) -> None:
        for name, kind in raw_columns_of(self.spec).items():
            cast_column(rows, name, kind)

    def grown(self, rows: pa.Table, known: Vocabularies) -> dict[str, Vocabulary]:
        return grown_vocabularies(self.spec, rows, known)

    def ready(self, rows: pa.Table, vocabularies: Vocabularies) -> pa.Table:
        return ready_rows(self.spec, rows, known_ids(vocabularies), lambda texts: self._vectors.encode(texts))

    def first(self, train: Path, validation: Path, vocabularies: Path, run: Path) -> None:
        values = {"data.train": [str(train)], "data.validation": [str(validation)]}
        self._trained(self._config(run, vocabularies, **values))

    def update(
        self, start: Path, train: Sequence[Path], vocabularies: Path, run: Path, rehearsed: Sequence[Path] = ()
    ) -> None:
        chosen, optimizer = self.settings.incremental, self.config.optimizer
        values: dict[str, Any] = {
            "data.train": [str(path) for path in (*rehearsed, *train)],
            "data.validation": [],
            "training.warm_start": str(start),
            "training.warm_optimizer": True,
            "training.epochs": chosen.epochs,
            "training.patience": 0,
            "training.calibrate": False,
            "training.curves": False,
            "training.batch_size": chosen.batch_size,
            "training.keep": 2,
            "training.seed": (self.config.training.seed + sum(map(_seed_of, train))) % 2**31,
            "optimizer.dense.learning_rate": optimizer.dense.learning_rate * chosen.learning_rate,
            "optimizer.embeddings.learning_rate": optimizer.embeddings.learning_rate * chosen.learning_rate,
        }
        self._trained(self._config(run, vocabularies, **values))

    def _trained(self, config: TrainConfig) -> None:
        train_run(config, resume=True)
        shutil.rmtree(Path(config.training.output) / "prepared", ignore_errors=True)

    def _config(self, run: Path, vocabularies: Path, **values: Any) -> TrainConfig:
        fixed = {"training.output": str(run), "data.prepared": "", "features.vocabularies": str(vocabularies)}
        return self.config.with_values(**fixed, **values)

    def probabilities(self, run: Path, rows: Sequence[Path]) -> np.ndarray:
        opened = open_run(run)
        source = opened.rows.read(rows, opened.config.inference.batch_size)
        encoded = EncodedRows(source, FittedEncoder.load(opened.encoder, opened.rows.spec))
        made = [logits for _, logits in logits_of(opened.ranker, encoded, device_of("cpu"))]
        return 1 / (1 + np.exp(-np.concatenate(made).astype(np.float64)))

    def vocabularies_of(self, run: Path) -> dict[str, Vocabulary]:
        folder = run / ENCODER / VOCABULARIES
        return {name: Vocabulary.load(folder, name) for name in growing_vocabularies(self.spec)}

    def release(self, run: Path, note: Mapping[str, Any]) -> str:
        export_run(run)
        return str(pack_scorer(self.settings, run, note={"incremental": dict(note)})["release"])


def _seed_of(path: Path) -> int:
    """A day's rows are learned in an order of their own."""
    try:
        return Date.fromisoformat(path.parent.name).toordinal()
    except ValueError:
        return 0
