"""A scene of lists: MovieLens or one's own log of interactions. Every run is a whole chain: features, recall and the ranker.

A run's folder is a workspace of its own, with the log as that run knew it (chain_log.py). What a day brings is used in this way:

    features     of the day's rows as of their moment, and affinity by the similarities of the log before the day
    recall       terms, popularity and item-to-item are computed anew; the vector channel goes on from the run before
    ranker       goes on from the run before, at a low rate, with its optimizers' state (offline/rank/chain_update.py); of a log of
                 impressions it learns from what was shown and left alone, too
    vocabulary   ids and attributes that came since are appended (they travel in the release's graph: nothing is shared online)

The day's validation rows are history to the release, like all its rows; no weight of the ranker's trunk is learned from them.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from data_exchange_center import columns as c
from data_exchange_center.errors import SettingsError
from data_exchange_center.feature_spec import load_spec
from data_exchange_center.settings import Settings
from data_exchange_center.vocabulary import Vocabulary
from data_exchange_center.workspace import Workspace, read_json, read_table, write_json, write_table
from offline.incremental.chain_log import ChainLog, check_events, dates_of
from offline.incremental.scene import Vocabularies
from offline.models.ranker import Ranker
from offline.preprocess.s2_term_trans import compute_features
from offline.rank.chain_export import export_model
from offline.rank.chain_update import encoded_rows, released_fit, update_ranker
from offline.rank.click_run import NETWORK
from offline.rank.feature_encoding import FittedEncoder
from offline.rank.s1_feature_engi import affinity_scores, fit_affinity_at
from offline.rank.s3_evaluate import judge
from offline.recall.all_channels import fit_recall
from offline.recall.vector_start import VectorStart
from offline.recall.vector_training import Continued
from offline.release.s1_pack_release import data_window, pack_release
from offline.s0_run_offline import stages_of
from offline.stages import run_stages
from offline.training.config import digest
from offline.training.dataset import JUDGE

CUT = "offline"  # what a run knows; nothing of it is held back but a first training's validation rows
RUN_FILE = "run.json"


class ChainScene:
    """See scene.Scene.

    Args:
        settings: of the dataset and every stage; `incremental` says how a day is learned.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings, self.name = settings, settings.scene
        self.spec, self.log = load_spec(settings.features.spec), ChainLog(settings)
        named = [name.strip() for name in settings.incremental.segments.split(",") if name.strip()]
        learned = [
            f.name
            for f in self.spec.inputs
            if f.vocabulary and f.vocabulary.policy == "learned" and not (f.key or f.is_list)
        ]
        self.segments: Sequence[str] = named or learned

    @property
    def fingerprint(self) -> str:
        sections = {"seed", "data", "split", "features", "recall", "rank"}
        chosen = self.settings.model_dump(mode="json", include=sections, exclude={"data": {"store", "source"}})
        incremental = self.settings.incremental.model_dump(
            mode="json", include={"learning_rate", "epochs", "shown_lists"}
        )
        return digest([chosen, self.spec.model_dump(mode="json"), incremental])

    def workspace_of(self, run: Path) -> Settings:
        """The settings of a run's own workspace."""
        return self.settings.with_values(
            **{"data.store": str(run), "split.holdout": "online", "split.online_events": 0}
        )

    def check(self, rows: pa.Table, date: str) -> None:
        if self.log.info.labels == "positives_only":
            raise SettingsError("the daily job judges by labels of both kinds, and this log holds positives only")
        check_events(self.log.as_events(rows), date)

    def grown(self, rows: pa.Table, known: Vocabularies) -> dict[str, Vocabulary]:
        return {}

    def ready(self, rows: pa.Table, vocabularies: Vocabularies) -> pa.Table:
        events = self.log.as_events(rows)
        known = events.slice(0, 0)
        if self.log.begun():
            # a day that is learned late is seen as on its own date: later days do not teach it what is alike
            today = str(dates_of(events[c.TIMESTAMP].to_numpy().max(keepdims=True))[0])
            known = self.log.events([date for date in self.log.learned_days() if date < today])
        with tempfile.TemporaryDirectory(prefix="ready-", dir=_made(self.log.state)) as place:
            own = self.workspace_of(Path(place))
            first = self.log.lay_out(own, known, events, c.TEST)
            compute_features(own, [CUT], first)
            workspace = Workspace(own)
            table = read_table(workspace.features / "rows.parquet")
            laid = read_table(workspace.split / "interactions.parquet", [c.RATING, c.EVENT_ID]).slice(first)
            scores = affinity_scores(own, "train" if len(known) else CUT, CUT, table)
        for name, values in {**scores, c.RATING: laid[c.RATING], c.EVENT_ID: laid[c.EVENT_ID]}.items():
            table = table.append_column(name, values if isinstance(values, pa.ChunkedArray) else pa.array(values))
        return table

    def first(self, train: Path, validation: Path, vocabularies: Path, run: Path) -> None:
        if (run / RUN_FILE).exists():
            return
        known, held = (self.log.as_events(read_table(path)) for path in (train, validation))
        write_table(self.log.base, pa.concat_tables([known, held]))
        self.learned_anew(known, held, run)
        write_json(run / RUN_FILE, {"days": []})

    def learned_anew(self, known: pa.Table, held: pa.Table, run: Path) -> None:
        """Every stage on events, as offline/s0_run_offline.py does it, into a run's folder.

        Args:
            known: what is learned. held: later events, held out.
        """
        own = self.workspace_of(run)
        stages = [stage for stage in stages_of(own) if stage.name != "split"]
        if not (Workspace(own).split / "interactions.parquet").exists():
            self.log.lay_out(own, known, held, c.ONLINE)
        run_stages(own, stages)
        _shown_network(own, run)

    def update(
        self, start: Path, train: Sequence[Path], vocabularies: Path, run: Path, rehearsed: Sequence[Path] = ()
    ) -> None:
        if (run / RUN_FILE).exists():
            return
        shutil.rmtree(run, ignore_errors=True)
        before, dates = read_json(start / RUN_FILE)["days"], [path.parent.name for path in train]
        own, there = self.workspace_of(run), self.workspace_of(start)
        known, new = self.log.events(before), pa.concat_tables([self.log.of_day(date) for date in dates])
        self.log.lay_out(own, known, new, c.TEST)
        compute_features(own, [CUT], len(known) + len(new))
        self._recall(own, there)
        chosen = self.settings.incremental
        rows = pa.concat_tables([read_table(path) for path in train])
        made = update_ranker(own, there, CUT, rows, chosen.epochs, chosen.learning_rate)
        _shown_network(own, run)
        write_json(run / RUN_FILE, {"days": [*before, *dates], **made})

    def _recall(self, own: Settings, there: Settings) -> None:
        old, rate = Workspace(there), self.settings.incremental.learning_rate
        merge = Path("parts") / "merge.json"  # what was learned of how channels add up stays
        if (old.recall("train") / merge).exists():
            (Workspace(own).recall("train") / merge).parent.mkdir(parents=True)
            shutil.copyfile(old.recall("train") / merge, Workspace(own).recall("train") / merge)
        slower = own.with_values(**{"recall.epochs": 1, "recall.learning_rate": own.recall.learning_rate * rate})
        start = VectorStart.load(old.recall(CUT) / "parts")
        fit_recall(slower, CUT, Continued(start, data_window(old, CUT)["last"]))
        fit_affinity_at(own, CUT)

    def probabilities(self, run: Path, rows: Sequence[Path]) -> np.ndarray:
        folder = released_fit(own := self.workspace_of(run)).folder(own)
        ranker, encoder = Ranker.load(folder), FittedEncoder.load(folder, self.spec)
        table = pa.concat_tables([read_table(path) for path in rows])
        _, probabilities, _ = judge(ranker, encoded_rows(ranker, encoder, table, JUDGE))
        return probabilities.astype(np.float64)

    def vocabularies_of(self, run: Path) -> dict[str, Vocabulary]:
        return {}

    def release(self, run: Path, note: Mapping[str, Any]) -> str:
        own = self.workspace_of(run)
        folder = released_fit(own).folder(own)
        if read_json(run / RUN_FILE)["days"]:  # a first training has exported already
            export_model(own, Ranker.load(folder), FittedEncoder.load(folder, self.spec))
        return str(pack_release(own, note={"incremental": dict(note)}, into=self.settings)["release"])


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _shown_network(own: Settings, run: Path) -> None:
    """Puts the released network where every scene's runs have theirs."""
    Ranker.load(released_fit(own).folder(own)).save(run / NETWORK)
