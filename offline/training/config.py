"""All that a training run is told, in one YAML file: `load_config("criteo.yaml", ["model.name=dcnv2"])`.

docs/examples/criteo.yaml shows every section. An unknown key is an error that suggests the nearest known one.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Hashable, Sequence
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import Field, field_validator, model_validator

from data_exchange_center.errors import SettingsError
from data_exchange_center.validation import Section, validated

PARTS = ("train", "validation", "test")
Part = Literal["train", "validation", "test"]
IMPORT_PATH = r"^([A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*)?$"


class DataConfig(Section):
    """Where the rows are and how they are read."""

    folder: str = Field("", description="what relative paths below start from; the working folder when empty")
    train: list[str] = Field(min_length=1, description="files or folders of part files to learn from")
    validation: list[str] = Field([], description="rows that pick the epoch; never learned from")
    test: list[str] = Field([], description="rows that are judged once, at the end; nothing is picked on them")
    format: str = Field("auto", description="a format of offline/reading, or auto: by name and content")
    reader: str = Field(
        "", pattern=IMPORT_PATH, description="a reader of one's own, package.module:function; see offline/reading"
    )
    on_error: Literal["raise", "skip"] = Field("raise", description="what a malformed row does")
    shuffle_rows: int = Field(
        100_000, ge=0, description="rows in the shuffle buffer of a streamed epoch; 0 keeps the files' order"
    )
    workers: int = Field(2, ge=1, le=256)
    prefetch: int = Field(4, ge=1, le=1024, description="batches read ahead")
    cache: bool = Field(
        True,
        description="encode once into memory-mapped arrays and shuffle over all rows, instead of streaming each epoch",
    )
    prepared: str = Field(
        "", description="folder that runs on the same data and features share; the run's own when empty"
    )

    def paths(self, part: Part) -> list[Path]:
        """Files and folders of a part."""
        given: list[str] = getattr(self, part)
        return [Path(self.folder, path).expanduser() for path in given]


class FeaturesConfig(Section):
    """What is made of the rows."""

    spec: str = Field("criteo", description="name of a feature spec in data_exchange_center/feature_specs, or a path")
    select: list[str] = Field(
        [], description="features that the run uses, by name or pattern, -pattern to leave out; all when empty"
    )
    embedding: int = Field(0, ge=0, le=4096, description="size of every embedding; those of the spec when 0")
    min_frequency: int = Field(0, ge=0, description="of every learned vocabulary; those of the spec when 0")
    quantiles: int = Field(0, ge=0, le=4096, description="bins of numbers with fitted ones; those of the spec when 0")
    vocabularies: str = Field(
        "",
        description="folder of the <feature>.json of features whose declared policy is growing: the rows hold ids of these",
    )
    text_encoder: str = Field(
        "", description="folder of the text encoder that made the rows' vectors; that of the settings when empty"
    )

    @field_validator("quantiles")
    @classmethod
    def _more_than_one_bin(cls, value: int) -> int:
        if value == 1:
            raise ValueError("a number needs 2 bins or more; 0 leaves those of the spec")
        return value


class ModelConfig(Section):
    """Which network."""

    name: str = Field("deepfm", description="name in offline/models/registry.py")
    preset: str = Field("default", description="a named variant of that model")
    options: dict[str, Any] = Field({}, description="switches that differ from the preset's")
    members: int = Field(1, ge=1, le=16, description="networks that learn side by side; their logits are averaged")
    initializer: Literal["uniform", "xavier_normal"] = Field(
        "uniform",
        description="of linear layers: uniform within one over the root of the inputs (torch's own), or xavier_normal "
        "(Glorot and Bengio, 2010) with biases of zero",
    )


class EmbeddingsConfig(Section):
    """How embeddings begin, and which ones grow: any id gets a row when training has seen it often enough."""

    grow: list[str] = Field([], description="features whose ids grow, by name or pattern as features.select has them")
    admit_after: int = Field(
        2, ge=1, le=2**31 - 1, description="sightings before an id owns a row; until then it is UNK"
    )
    evict_after_epochs: int = Field(
        0, ge=0, le=2**30, description="epochs unseen after which an id is forgotten; 0: never"
    )
    evict_after_steps: int = Field(0, ge=0, le=2**30, description="the same in optimizer steps; one of the two")
    most_rows: int = Field(
        0, ge=0, le=2**30, description="of all growing ids of one embedding size; 0: as many as memory holds"
    )
    initializer: Literal["normal", "truncated_normal", "uniform", "zeros"] = Field(
        "normal", description="of fresh rows; truncated at two deviations"
    )
    deviation: float = Field(
        0.05, gt=0, le=100, allow_inf_nan=False, description="of fresh rows; of uniform ones the largest absolute value"
    )

    @model_validator(mode="after")
    def _one_clock(self) -> EmbeddingsConfig:
        if self.evict_after_epochs and self.evict_after_steps:
            raise ValueError("ids age by epochs or by steps: set one of evict_after_epochs and evict_after_steps")
        return self


class TreesConfig(Section):
    """Gradient-boosted trees on the run's numbers beside the network; what both say is averaged as logits."""

    count: int = Field(0, ge=0, le=2000, description="trees; 0: the network alone")
    depth: int = Field(4, ge=1, le=8, description="questions that a tree asks of a row")
    learning_rate: float = Field(0.025, gt=0, le=1, allow_inf_nan=False)
    least_rows: int = Field(100, ge=1, le=2**31 - 1, description="training rows of a leaf")
    columns: float = Field(0.4, gt=0, le=1, description="share of the numbers that a tree may ask about")
    rows: float = Field(0.8, gt=0, le=1, description="share of the rows that a tree is grown from")
    l2: float = Field(5.0, ge=0, le=1e6, allow_inf_nan=False, description="of what a leaf says")
    share: float = Field(0.5, gt=0, lt=1, description="weight of the trees' logit; the network has the rest")


class OptimizerConfig(Section):
    """One optimizer. `reg` is L2, added to the gradient; `weight_decay` shrinks the weights beside it, as AdamW does."""

    name: Literal["sgd", "adam", "adamw", "adagrad", "sparse_adamw", "sparse_adagrad"] = Field(
        "adam", description="sparse ones are for embeddings: a step changes the rows that it looks up, and no others"
    )
    learning_rate: float = Field(1e-3, gt=0, le=100, allow_inf_nan=False)
    reg: float = Field(0.0, ge=0, le=100, allow_inf_nan=False, description="L2 of sgd, adam and adagrad")
    weight_decay: float = Field(0.0, ge=0, le=100, allow_inf_nan=False, description="decoupled, of adamw")
    momentum: float = Field(0.0, ge=0, lt=1, description="of sgd")

    @property
    def sparse(self) -> bool:
        """Whether it is one of looked-up rows."""
        return self.name.startswith("sparse_")

    @property
    def decoupled(self) -> bool:
        """Whether its decay is beside the gradient."""
        return self.name in ("adamw", "sparse_adamw")

    @model_validator(mode="after")
    def _fits(self) -> OptimizerConfig:
        if self.decoupled and self.reg:
            raise ValueError(f"{self.name} takes weight_decay, not reg")
        if not self.decoupled and self.weight_decay:
            raise ValueError(f"{self.name} takes reg, not weight_decay; adamw takes weight_decay")
        if self.momentum and self.name != "sgd":
            raise ValueError("momentum is for sgd")
        return self


class OptimizersConfig(Section):
    """Embedding tables learn by an optimizer of their own."""

    dense: OptimizerConfig = OptimizerConfig()
    embeddings: OptimizerConfig = OptimizerConfig()
    first_order_reg: float | None = Field(
        None,
        ge=0,
        le=100,
        allow_inf_nan=False,
        description="L2 of the ids' first-order weights, which lie beside their embeddings; that of embeddings when null",
    )
    schedule: Literal["constant", "cosine"] = Field(
        "constant", description="cosine: a short warm-up, then half a cosine down to a twentieth"
    )

    @model_validator(mode="after")
    def _dense_is_dense(self) -> OptimizersConfig:
        if self.dense.sparse:
            raise ValueError(f"dense.name {self.dense.name} changes looked-up rows, and only embeddings are looked up")
        return self

    @model_validator(mode="after")
    def _first_order_has_l2(self) -> OptimizersConfig:
        if self.first_order_reg is not None and (self.embeddings.sparse or self.embeddings.decoupled):
            raise ValueError(
                f"first_order_reg is L2 of whole tables, and embeddings.name {self.embeddings.name} has none: "
                "use sgd, adam or adagrad, or leave it out"
            )
        return self


class TrainingConfig(Section):
    """How long, how, and what is kept."""

    output: str = Field(min_length=1, description="the run's folder")
    epochs: int = Field(1, ge=1, le=10_000)
    batch_size: int = Field(4096, ge=1, le=2**22)
    accumulate: int = Field(1, ge=1, le=4096, description="batches of one optimizer step")
    log_every: int = Field(50, ge=1, description="optimizer steps between two lines of the log")
    save_every: int = Field(
        1000, ge=0, description="optimizer steps between two checkpoints; 0: at the end of epochs only"
    )
    keep: int = Field(3, ge=2, description="newest checkpoints kept; two, so that a torn one has one before it")
    warm_start: str = Field("", description="folder of a run whose encoder and weights this one starts from")
    warm_optimizer: bool = Field(
        False,
        description="start from the checkpoint of that run's chosen epoch: the optimizers' state, and ids that grow, too",
    )
    patience: int = Field(0, ge=0, description="epochs without a better validation before training ends; 0: all epochs")
    metric: Literal["auc", "gauc", "logloss"] = Field("auc", description="of validation, which picks the epoch")
    group: str = Field("", description="raw column whose values group the rows of GAUC; no GAUC when empty")
    curves: bool = Field(
        True, description="draw losses and AUC when training has ended; a release draws them otherwise"
    )
    calibrate: bool = Field(True, description="fit slope and offset of the logit on validation (Platt) after training")
    seed: int = Field(0, ge=0, lt=2**31)
    threads: int = Field(1, ge=1, le=1024)
    bf16: bool = Field(False, description="autocast matrix products to bfloat16; weights stay float32")
    device: Literal["auto", "cpu", "cuda"] = Field("cpu", description="auto: a GPU when there is one")


class InferenceConfig(Section):
    """Of validation, evaluation and prediction."""

    batch_size: int = Field(16_384, ge=1, le=2**22)


class DistributedConfig(Section):
    """How the processes that torchrun starts share a run."""

    tables: Literal["whole", "sharded"] = Field(
        "whole",
        description="whole: every process holds all; sharded: embedding tables are spread over them by TorchRec",
    )
    patience_minutes: int = Field(
        240, ge=1, le=10_080, description="that a process waits for another, for example while that encodes the rows"
    )


class TrainConfig(Section):
    """A run."""

    data: DataConfig
    features: FeaturesConfig = FeaturesConfig()
    model: ModelConfig = ModelConfig()
    embeddings: EmbeddingsConfig = EmbeddingsConfig()
    trees: TreesConfig = TreesConfig()
    optimizer: OptimizersConfig = OptimizersConfig()
    training: TrainingConfig
    distributed: DistributedConfig = DistributedConfig()
    inference: InferenceConfig = InferenceConfig()

    @model_validator(mode="before")
    @classmethod
    def _tables_choose_their_optimizer(cls, tree: Any) -> Any:
        """The optimizer of embeddings, unless it is named: sparse_adamw where ids grow, sparse_adagrad of sharded tables."""
        if not isinstance(tree, dict):
            return tree
        embeddings, distributed = tree.get("embeddings"), tree.get("distributed")
        if isinstance(embeddings, dict) and embeddings.get("grow"):
            name = "sparse_adamw"
        elif isinstance(distributed, dict) and distributed.get("tables") == "sharded":
            name = "sparse_adagrad"
        else:
            return tree
        optimizer = tree.get("optimizer", {})
        of_rows = optimizer.get("embeddings", {}) if isinstance(optimizer, dict) else None
        if not isinstance(of_rows, dict):
            return tree
        return tree | {"optimizer": optimizer | {"embeddings": {"name": name} | of_rows}}

    @model_validator(mode="after")
    def _consistent(self) -> TrainConfig:
        training = self.training
        if self.embeddings.grow and not self.optimizer.embeddings.sparse:
            raise ValueError(
                f"optimizer.embeddings.name {self.optimizer.embeddings.name} moves whole tables, and embeddings.grow needs one "
                "that moves looked-up rows: sparse_adamw (with weight_decay, not reg) or sparse_adagrad"
            )
        if self.embeddings.grow and training.warm_start and not training.warm_optimizer:
            raise ValueError(
                "embeddings.grow and training.warm_start need training.warm_optimizer: which ids own a row is in a run's "
                "checkpoints, not in its network"
            )
        if training.warm_optimizer and not training.warm_start:
            raise ValueError(
                "training.warm_optimizer needs training.warm_start, the run whose checkpoint it goes on from"
            )
        if self.distributed.tables == "sharded":
            self._can_be_sharded()
        if training.patience and not self.data.validation:
            raise ValueError("training.patience needs data.validation: early stopping looks at validation only")
        if self.trees.count and not self.data.cache:
            raise ValueError("trees.count needs data.cache: trees are grown from all rows at once")
        if training.metric == "gauc" and not training.group:
            raise ValueError("training.metric gauc needs training.group, the column whose values group the rows")
        return self

    def _can_be_sharded(self) -> None:
        of_rows, training = self.optimizer.embeddings, self.training
        if self.embeddings.grow:
            raise ValueError(
                "distributed.tables sharded needs tables of fixed size: leave embeddings.grow out, or grow them with tables whole"
            )
        if self.optimizer.first_order_reg:
            raise ValueError("distributed.tables sharded learns without L2: leave optimizer.first_order_reg out")
        if of_rows.name not in ("adagrad", "sparse_adagrad") or of_rows.reg:
            raise ValueError(
                "distributed.tables sharded learns rows as gradients arrive, which is adagrad without reg: "
                f"set optimizer.embeddings.name sparse_adagrad and reg 0, not {of_rows.name} and {of_rows.reg:g}"
            )
        if training.accumulate > 1:
            raise ValueError(
                "distributed.tables sharded changes rows in every backward pass, so it cannot accumulate: "
                "set training.accumulate 1 and a larger training.batch_size"
            )
        if training.warm_optimizer:
            raise ValueError(
                "distributed.tables sharded starts from the weights of another run, not from its optimizers: "
                "set training.warm_optimizer false"
            )
        if training.device != "cpu":
            raise ValueError(f"distributed.tables sharded is for training.device cpu, not {training.device}")

    def changed(self, *changes: str) -> TrainConfig:
        """A copy with overrides `a.b=c` applied."""
        return validated(TrainConfig, _overridden(self.model_dump(mode="json"), changes), "overrides")

    def with_values(self, **values: Any) -> TrainConfig:
        """A copy with dotted settings replaced: `with_values(**{"training.seed": 1})`."""
        tree = self.model_dump(mode="json")
        for dotted, value in values.items():
            _put(tree, dotted, value)
        return validated(TrainConfig, tree, "overrides")


def load_config(path: str | Path, overrides: Sequence[str] = ()) -> TrainConfig:
    """Reads a run's YAML and applies overrides.

    Args:
        path: of the file.
        overrides: `a.b=c` each; c is JSON or YAML: `training.epochs=3`, `model.options.hidden=[400,400]`.

    Raises:
        SettingsError: no such file, not YAML, an unknown key, or a value of the wrong type or range.
    """
    file = Path(path)
    try:
        tree = yaml.load(file.read_text(encoding="utf-8"), _StrictLoader)  # noqa: S506  # a SafeLoader
    except OSError as error:
        raise SettingsError(f"{file}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise SettingsError(f"{file}: not a text file in UTF-8: {error}") from error
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise SettingsError(f"{file}: not valid YAML: {error}") from error
    if not isinstance(tree, dict):
        raise SettingsError(f"{file}: a run's settings are a mapping of sections, got {type(tree).__name__}")
    return validated(TrainConfig, _overridden(tree, overrides), str(file))


def digest(tree: Any) -> str:
    """Short name of a tree of plain values: the same values give the same name."""
    return hashlib.sha256(json.dumps(tree, sort_keys=True).encode()).hexdigest()[:16]


class _StrictLoader(yaml.SafeLoader):
    """Refuses a key that stands twice in one mapping; YAML would silently take the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[Any] = set()
        for key_node, _ in node.value:
            key = key_node.value
            if key in seen and isinstance(key_node, yaml.ScalarNode):
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key!r} stands twice", key_node.start_mark
                )
            seen.add(key if isinstance(key, str) else id(key_node))
        return super().construct_mapping(node, deep)


def _overridden(tree: dict[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    for override in overrides:
        dotted, equals, text = override.partition("=")
        if not equals or not dotted.strip("."):
            raise SettingsError(f"override {override!r}: write section.name=value, for example training.epochs=3")
        _put(tree, dotted.strip(), parsed(text))
    return tree


def parsed(text: str) -> Any:
    """The value that a command line means: JSON, else YAML, else the text itself."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        pass
    try:
        return yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError):
        return text


def _put(tree: dict[str, Any], dotted: str, value: Any) -> None:
    *sections, name = dotted.split(".")
    node = tree
    for section in sections:
        inner = node.setdefault(section, {})
        if inner is None:
            inner = node[section] = {}
        if not isinstance(inner, dict):
            raise SettingsError(f"override {dotted!r}: {section!r} is no section", field=dotted)
        node = inner
    node[name] = value
