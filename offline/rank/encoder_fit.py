"""Fits an encoder: vocabularies, token tables, quantiles and statistics, from rows that come in batches.

Two passes: the first learns tokens and quantiles, the second the moments of numbers that depend on them. What is learned from a
number is learned from what the encoder's own graph makes of it, so that fit and use cannot differ.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnxruntime as ort
import pyarrow as pa

from data_exchange_center.derived_values import FOLD, Fitted
from data_exchange_center.encoder import ENCODED, RAW, build_encoder, encoded_inputs
from data_exchange_center.errors import DataError
from data_exchange_center.feature_operations import transform_name
from data_exchange_center.feature_spec import Feature, FeatureSpec
from data_exchange_center.raw_columns import missing_value, raw_column, typed_values
from data_exchange_center.token_tables import TokenTable
from data_exchange_center.vocabulary import Vocabulary, vocabulary_of_counts
from offline.rank.feature_encoding import FittedEncoder, computable, encoder_session, run_encoder
from offline.rank.stream_statistics import Moments, Quantiles, TokenCounts, fold_of

Columns = Mapping[str, pa.Array | pa.ChunkedArray]


class EncoderFit:
    """One fit. Show it every row by `see_tokens`, then every row again by `see_numbers`, then take `encoder`.

    Args:
        spec: the scene's features.
        id_types: dtypes of user and item ids.
        known: vocabularies, by owner, that are given and not fitted.
    """

    def __init__(
        self, spec: FeatureSpec, id_types: tuple[str, str], known: Mapping[str, Vocabulary] | None = None
    ) -> None:
        self.spec, self.id_types, self.known = spec, id_types, dict(known or {})
        self.owners = sorted({spec.vocabulary_of(f).name for f in encoded_inputs(spec) if f.vocabulary})
        self.counted = _counted(spec)  # what count and target features read -> tokens rarer than this are not kept
        learned = {n for n in self.owners if spec[n].vocabulary.policy in ("learned", "growing")} - set(self.known)  # type: ignore[union-attr]
        self.counts = {name: TokenCounts(spec.folds) for name in sorted(learned | set(self.counted))}
        self.quantiles = {feature.name: Quantiles() for feature in encoded_inputs(spec) if feature.bins}
        self.moments = {
            feature.name: Moments()
            for feature in encoded_inputs(spec)
            if "standardize" in map(transform_name, feature.transform)
        }
        self._sessions: dict[tuple[str, ...], ort.InferenceSession] = {}
        self._first: tuple[dict[str, Vocabulary], Fitted] | None = None

    def see_tokens(self, columns: Columns, positions: np.ndarray, labels: np.ndarray | None = None) -> None:
        """First pass: tokens and quantiles.

        Args:
            columns: raw columns of one length by feature; features that need others are left alone.
            positions: int64 [N], of the rows in the fit.
            labels: 0 or 1 [N]; needed by target features.

        Raises:
            DataError: labels are needed and missing or neither 0 nor 1, or a column is not of the declared type.
        """
        positives = self._positives(labels, len(positions))
        folds = fold_of(positions, self.spec.folds)
        made = self._first_pass(columns)
        for name in self.quantiles:
            if ENCODED + name in made:
                self.quantiles[name].add(made[ENCODED + name], positions)
        for name, counts in self.counts.items():
            feature = self.spec[name]
            if feature.derive is not None:
                if RAW + name in made:
                    counts.add(pa.array(made[RAW + name]), folds, positives)
            elif name in columns:
                tokens, rows = self._tokens(feature, columns[name])
                counts.add(tokens, folds[rows], positives[rows])

    def see_numbers(self, columns: Columns, positions: np.ndarray) -> None:
        """Second pass: moments. Arguments as for `see_tokens`."""
        names = [name for name in computable(self.spec, columns) if name in self.moments]
        if not names:
            return
        vocabularies, fitted = self._learned()
        key = ("numbers", *names)
        if key not in self._sessions:
            model = build_encoder(self.spec, vocabularies, fitted, self.id_types, only=names, by_fold=True)
            self._sessions[key] = encoder_session(model)
        raw = self._raw(columns, names) | {FOLD: fold_of(positions, self.spec.folds)}
        made = run_encoder(self._sessions[key], raw)
        for name in names:
            self.moments[name].add(made[ENCODED + name])

    def encoder(self) -> FittedEncoder:
        """What was learned.

        Raises:
            SpecError: a vocabulary's policy lacks what it needs; the feature is named.
        """
        vocabularies, fitted = self._learned()
        statistics = {name: known.statistics(self.spec[name].length) for name, known in self.moments.items()}
        return FittedEncoder(self.spec, vocabularies, Fitted(statistics, fitted.edges, fitted.tables), self.id_types)

    def vocabularies(self) -> dict[str, Vocabulary]:
        """What the first pass has found so far, by owner.

        Raises:
            SpecError: as in `encoder`.
        """
        return {name: self._vocabulary(self.spec[name]) for name in self.owners}

    def _learned(self) -> tuple[dict[str, Vocabulary], Fitted]:
        """Vocabularies and, without statistics, what else the first pass learned."""
        if self._first is None:
            vocabularies = self.vocabularies()
            edges = {name: known.edges(self.spec[name].bins) for name, known in self.quantiles.items()}
            tables = {name: self._table(self.spec[name]) for name in self.counted}
            self._first = vocabularies, Fitted(None, edges, tables)
        return self._first

    def _vocabulary(self, feature: Feature) -> Vocabulary:
        if feature.name in self.known:
            return self.known[feature.name]
        policy = feature.vocabulary
        assert policy is not None  # noqa: S101  # only owners of vocabularies come here
        tokens, rows = self.counts[feature.name].frequencies() if feature.name in self.counts else (pa.array([]), [])
        return vocabulary_of_counts(feature.name, policy, tokens, np.asarray(rows), self._missing(feature))

    def _table(self, feature: Feature) -> TokenTable:
        return self.counts[feature.name].table(self._missing(feature), self.counted[feature.name])

    def _missing(self, feature: Feature) -> int | str:
        value = missing_value(feature, self.spec.dtype_of(feature, *self.id_types))
        return value if isinstance(value, str) else int(value)

    def _positives(self, labels: np.ndarray | None, rows: int) -> np.ndarray:
        if labels is None:
            needy = [f.name for f in self.spec.derived if f.derive and f.derive.op == "target"]
            if needy:
                raise DataError(
                    f"feature {needy[0]!r}: target encoding needs labels, and the rows have none", field=needy[0]
                )
            return np.zeros(rows, bool)
        if not np.isin(labels, (0, 1)).all():
            wrong = labels[~np.isin(labels, (0, 1))][0]
            raise DataError(f"labels must be 0 or 1, and one is {wrong}", field="label")
        return labels.astype(bool)

    def _tokens(self, feature: Feature, column: pa.Array | pa.ChunkedArray) -> tuple[pa.Array, np.ndarray]:
        """Tokens of a column, and the row that each belongs to."""
        kind = self.spec.dtype_of(feature, *self.id_types)
        values = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
        rows = np.arange(len(values))
        try:
            if not feature.is_list:
                return typed_values(feature, values, kind), rows
            lengths = values.value_lengths().fill_null(0).to_numpy(zero_copy_only=False)
            return typed_values(feature, values.flatten(), kind), np.repeat(rows, lengths)
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError, AttributeError) as error:
            raise DataError(
                f"feature {feature.name!r}: the column is {values.type}: {error}", field=feature.name
            ) from error

    def _first_pass(self, columns: Columns) -> dict[str, np.ndarray]:
        """Values that quantiles are taken of, and of crosses whose tokens are counted."""
        known = computable(self.spec, columns)
        crosses = [name for name in known if name in self.counts and self.spec[name].derive is not None]
        bins = [name for name in known if name in self.quantiles]
        if not crosses and not bins:
            return {}
        key = ("tokens", *crosses, *bins)
        if key not in self._sessions:
            self._sessions[key] = encoder_session(
                build_encoder(self.spec, {}, Fitted(), self.id_types, only=bins, crosses=crosses)
            )
        return run_encoder(self._sessions[key], self._raw(columns, [*crosses, *bins]))

    def _raw(self, columns: Columns, names: list[str]) -> dict[str, np.ndarray]:
        sources = {source.name: source for name in names for source in self.spec.sources(name)}
        return {
            name: raw_column(source, self.spec.dtype_of(source, *self.id_types), columns[name])
            for name, source in sources.items()
        }


def _counted(spec: FeatureSpec) -> dict[str, float]:
    """What count and target features read -> the smallest `min_frequency` among them."""
    wanted: dict[str, float] = {}
    for feature in spec.derived:
        if feature.derive and feature.derive.op in ("count", "target"):
            name, least = feature.derive.inputs[0], feature.derive.parameter("min_frequency")
            wanted[name] = min(least, wanted.get(name, least))
    return wanted


def fit_encoder(spec: FeatureSpec, columns: Columns, extra: Mapping[str, np.ndarray]) -> FittedEncoder:
    """Fits an encoder on tables that are in memory.

    Args:
        columns: user and item features of the fit's rows, keys included.
        extra: raw values of candidate features to take statistics from (they are not in the feature table).

    Raises:
        SpecError, DataError: a declaration cannot be fitted to the data; the feature is named.
    """
    keys = {feature.entity: str(columns[feature.name].type) for feature in spec.inputs if feature.key}
    fit = EncoderFit(spec, (keys.get("user", "int64"), keys.get("item", "int64")))
    tables: list[Columns] = [columns, *({name: pa.array(values)} for name, values in extra.items())]
    positions = [np.arange(len(next(iter(table.values()))) if table else 0) for table in tables]
    for table, places in zip(tables, positions, strict=True):
        fit.see_tokens(table, places)
    for table, places in zip(tables, positions, strict=True):
        fit.see_numbers(table, places)
    return fit.encoder()
