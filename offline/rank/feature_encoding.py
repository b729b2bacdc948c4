"""A fitted encoder: what a fit learned about the raw values, the graph made from it, and running it over whole tables."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pyarrow as pa

from data_exchange_center.block_encoder import build_block_encoder
from data_exchange_center.derived_values import Fitted, Statistics
from data_exchange_center.encoder import build_encoder, embedding_rows, encoded_inputs
from data_exchange_center.errors import DataError
from data_exchange_center.feature_spec import FeatureSpec
from data_exchange_center.input_blocks import InputBlock, input_blocks
from data_exchange_center.raw_columns import raw_column
from data_exchange_center.token_tables import TokenTable
from data_exchange_center.vocabulary import Vocabulary
from data_exchange_center.workspace import atomic_path, read_json, sha256, write_json

CHUNK = 65_536  # rows encoded at a time
VOCABULARIES, TABLES = "vocab_map", "token_tables"


@dataclass(frozen=True)
class FittedEncoder:
    """A fit's encoding: vocabularies and statistics, and the graph made from them.

    Attributes:
        vocabularies: by owning feature.
        fitted: statistics, edges and tables; see data_exchange_center/encoder.py.
        id_types: dtypes of user and item ids.
    """

    spec: FeatureSpec
    vocabularies: Mapping[str, Vocabulary]
    fitted: Fitted
    id_types: tuple[str, str]

    @property
    def rows(self) -> dict[str, int]:
        """Embedding rows by owning feature."""
        owners = {self.spec.vocabulary_of(feature).name for feature in encoded_inputs(self.spec)}
        sizes = {
            name: embedding_rows(self.spec[name], self.spec, self.vocabularies, self.fitted.edges)
            for name in sorted(owners)
        }
        return {name: size for name, size in sizes.items() if size}

    def model(self, users: int | str = "users", items: int | str = "items") -> onnx.ModelProto:
        """The ONNX graph; see data_exchange_center/encoder.py."""
        return build_encoder(self.spec, self.vocabularies, self.fitted, self.id_types, users=users, items=items)

    @property
    def blocks(self) -> list[InputBlock]:
        """Inputs of the graph that takes packed features."""
        return input_blocks(self.spec, self.id_types)

    def block_model(self) -> onnx.ModelProto:
        """The graph that takes packed features; see data_exchange_center/block_encoder.py."""
        return build_block_encoder(self.spec, self.vocabularies, self.fitted, self.id_types)

    def session(self, *, by_fold: bool = False) -> ort.InferenceSession:
        """The graph, loaded; `by_fold` for the fit's own rows."""
        return encoder_session(build_encoder(self.spec, self.vocabularies, self.fitted, self.id_types, by_fold=by_fold))

    def encode(self, columns: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Runs the graph over raw columns of one length: feature -> array becomes `encoded.<f>` and `raw.<f>` -> array.

        What cannot be computed from the given columns is left out.
        """
        only = computable(self.spec, columns)
        model = build_encoder(self.spec, self.vocabularies, self.fitted, self.id_types, only=only)
        return run_encoder(encoder_session(model), columns)

    def selected(self, spec: FeatureSpec) -> FittedEncoder:
        """The same fit for a spec of fewer features (feature_selection.selected)."""
        return FittedEncoder(spec, self.vocabularies, self.fitted, self.id_types)

    def save(self, folder: Path) -> None:
        """Writes `encoder.onnx`, `vocab_map/<feature>.json`, `token_tables/<feature>.parquet` and, last, `encoder.json`.

        Each is written atomically; `encoder.json` holds the checksums of the others.
        """
        written = [vocabulary.save(folder / VOCABULARIES) for vocabulary in self.vocabularies.values()]
        totals = {}
        for name, table in self.fitted.tables.items():
            written.append(folder / TABLES / f"{name}.parquet")
            totals[name] = table.save(written[-1])
        with atomic_path(folder / "encoder.onnx") as temporary:
            onnx.save(self.model(), temporary)
        written.append(folder / "encoder.onnx")
        write_json(
            folder / "encoder.json",
            {
                "id_types": list(self.id_types),
                "vocabularies": sorted(self.vocabularies),
                "statistics": {
                    name: {"mean": list(known.mean), "deviation": list(known.deviation)}
                    for name, known in (self.fitted.statistics or {}).items()
                },
                "edges": {name: list(edges) for name, edges in (self.fitted.edges or {}).items()},
                "tables": totals,
                "sha256": {str(path.relative_to(folder)): sha256(path) for path in written},
            },
        )

    @classmethod
    def load(cls, folder: Path, spec: FeatureSpec) -> FittedEncoder:
        """Reads what `save` wrote.

        Raises:
            DataError: a file is missing, broken, or not the one that was saved.
        """
        path = folder / "encoder.json"
        content = read_json(path)
        try:
            for name, digest in content.get("sha256", {}).items():
                if not (folder / name).exists() or sha256(folder / name) != digest:
                    raise DataError(
                        f"{folder / name}: missing, or not what {path} was saved with; fit the encoder again"
                    )
            statistics = {
                name: Statistics(tuple(known["mean"]), tuple(known["deviation"]))
                for name, known in content["statistics"].items()
            }
            edges = {name: tuple(float(edge) for edge in known) for name, known in content.get("edges", {}).items()}
            tables = {
                name: TokenTable.load(folder / TABLES / f"{name}.parquet", totals)
                for name, totals in content.get("tables", {}).items()
            }
            vocabularies = {name: Vocabulary.load(folder / VOCABULARIES, name) for name in content["vocabularies"]}
            id_types = (content["id_types"][0], content["id_types"][1])
        except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
            raise DataError(f"{path}: not a fitted encoder: {error!r}") from error
        return cls(spec, vocabularies, Fitted(statistics, edges, tables), id_types)


def computable(spec: FeatureSpec, columns: Mapping[str, object]) -> list[str]:
    """Names of the inputs and derived features that can be computed from these columns."""
    return [
        feature.name
        for feature in spec.features
        if feature.cross is None and all(source.name in columns for source in spec.sources(feature.name))
    ]


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


def encoder_session(model: onnx.ModelProto) -> ort.InferenceSession:
    """An encoder's graph, loaded to run on one thread."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    return ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
