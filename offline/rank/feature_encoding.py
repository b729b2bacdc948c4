"""Fits the encoder on a fit's rows, and runs it over whole tables."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pyarrow as pa

from data_exchange_center.encoder import (
    ENCODED,
    Statistics,
    build_encoder,
    embedding_rows,
    encoded_inputs,
)
from data_exchange_center.errors import DataError
from data_exchange_center.feature_spec import Feature, FeatureSpec
from data_exchange_center.raw_columns import raw_column
from data_exchange_center.vocabulary import Vocabulary, fit_vocabulary
from data_exchange_center.workspace import atomic_path, read_json, write_json

CHUNK = 65_536  # rows encoded at a time
SMALLEST_DEVIATION = 1e-6  # of a number that hardly varies


@dataclass(frozen=True)
class FittedEncoder:
    """A fit's encoding: vocabularies and statistics, and the graph made from them.

    Attributes:
        vocabularies: by owning feature.
        statistics: of inputs with `standardize`.
        id_types: dtypes of user and item ids.
    """

    spec: FeatureSpec
    vocabularies: Mapping[str, Vocabulary]
    statistics: Mapping[str, Statistics]
    id_types: tuple[str, str]

    @property
    def rows(self) -> dict[str, int]:
        """Embedding rows by owning feature."""
        owners = {self.spec.vocabulary_of(feature).name for feature in encoded_inputs(self.spec)}
        sizes = {name: embedding_rows(self.spec[name], self.spec, self.vocabularies) for name in sorted(owners)}
        return {name: size for name, size in sizes.items() if size}

    def model(self, users: int | str = "users", items: int | str = "items") -> onnx.ModelProto:
        """The ONNX graph; see data_exchange_center/encoder.py."""
        return build_encoder(self.spec, self.vocabularies, self.statistics, self.id_types, users=users, items=items)

    def encode(self, columns: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Runs the graph over raw columns of one length: feature -> array becomes `encoded.<f>` and `raw.<f>` -> array."""
        model = build_encoder(self.spec, self.vocabularies, self.statistics, self.id_types, only=list(columns))
        return run_encoder(_session(model), columns)

    def save(self, folder: Path) -> None:
        """Writes `encoder.onnx`, `vocab_map/<feature>.json` and `encoder.json`, each atomically."""
        for vocabulary in self.vocabularies.values():
            vocabulary.save(folder / "vocab_map")
        write_json(
            folder / "encoder.json",
            {
                "id_types": list(self.id_types),
                "vocabularies": sorted(self.vocabularies),
                "statistics": {
                    name: {"mean": list(known.mean), "deviation": list(known.deviation)}
                    for name, known in self.statistics.items()
                },
            },
        )
        with atomic_path(folder / "encoder.onnx") as temporary:
            onnx.save(self.model(), temporary)

    @classmethod
    def load(cls, folder: Path, spec: FeatureSpec) -> FittedEncoder:
        """Reads what `save` wrote.

        Raises:
            DataError: a file is missing or broken.
        """
        content = read_json(folder / "encoder.json")
        try:
            return cls(
                spec,
                {name: Vocabulary.load(folder / "vocab_map", name) for name in content["vocabularies"]},
                {
                    name: Statistics(tuple(known["mean"]), tuple(known["deviation"]))
                    for name, known in content["statistics"].items()
                },
                (content["id_types"][0], content["id_types"][1]),
            )
        except (KeyError, TypeError, IndexError) as error:
            raise DataError(f"{folder / 'encoder.json'}: not an encoder's statistics: {error!r}") from error


def fit_encoder(
    spec: FeatureSpec, columns: Mapping[str, pa.ChunkedArray], extra: Mapping[str, np.ndarray]
) -> FittedEncoder:
    """Fits vocabularies and statistics.

    Args:
        columns: user and item features of the fit's rows, keys included.
        extra: raw values of candidate features to take statistics from (they are not in the feature table).

    Raises:
        SpecError, DataError: a declaration cannot be fitted to the data; the feature is named.
    """
    owners = {spec.vocabulary_of(feature).name for feature in encoded_inputs(spec) if feature.vocabulary}
    vocabularies = {name: fit_vocabulary(name, spec[name].vocabulary, columns[name]) for name in sorted(owners)}  # type: ignore[arg-type]
    keys = {feature.entity: str(columns[feature.name].type) for feature in spec.inputs if feature.key}
    id_types = (keys.get("user", "int64"), keys.get("item", "int64"))
    standardized = [feature for feature in encoded_inputs(spec) if "standardize" in feature.transform]
    statistics: dict[str, Statistics] = {}
    for feature in standardized:
        raw = (
            extra[feature.name]
            if feature.entity == "candidate"
            else raw_column(feature, spec.dtype_of(feature, *id_types), columns[feature.name])
        )
        session = _session(build_encoder(spec, vocabularies, None, id_types, only=[feature.name]))
        statistics[feature.name] = _statistics(
            feature, run_encoder(session, {feature.name: raw})[ENCODED + feature.name]
        )
    return FittedEncoder(spec, vocabularies, statistics, id_types)


def _statistics(feature: Feature, values: np.ndarray) -> Statistics:
    columns = values.reshape(len(values), -1).astype(np.float64)
    mean, deviation = columns.mean(0), columns.std(0)
    deviation[deviation < SMALLEST_DEVIATION] = 1.0  # a constant says nothing; it becomes 0
    return Statistics(tuple(mean.tolist()), tuple(deviation.tolist()))


def raw_columns(encoder: FittedEncoder, table: pa.Table, entities: tuple[str, ...]) -> dict[str, np.ndarray]:
    """The raw arrays of all input features of these entities, from a table that has their columns."""
    spec, made = encoder.spec, {}
    for feature in spec.inputs:
        if feature.entity in entities:
            if feature.name not in table.column_names:
                raise DataError(f"the table has no column for feature {feature.name!r}", field=feature.name)
            made[feature.name] = raw_column(feature, spec.dtype_of(feature, *encoder.id_types), table[feature.name])
    return made


def run_encoder(session: ort.InferenceSession, columns: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Runs an encoder's graph over columns of one length, in chunks."""
    names = [output.name for output in session.get_outputs()]
    wanted = {declared.name for declared in session.get_inputs()}
    rows = len(next(iter(columns.values())))
    parts: list[list[np.ndarray]] = [[] for _ in names]
    for start in range(0, max(rows, 1), CHUNK):
        chunk = {name: values[start : start + CHUNK] for name, values in columns.items() if name in wanted}
        for part, made in zip(parts, session.run(names, chunk), strict=True):
            part.append(made)
    return {name: np.concatenate(part) for name, part in zip(names, parts, strict=True)}


def run_encoder_once(session: ort.InferenceSession, columns: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Runs a whole encoder's graph on one request's inputs, whose two sides have different leading dimensions."""
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, dict(columns)), strict=True))


def _session(model: onnx.ModelProto) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    return ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
