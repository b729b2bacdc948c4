"""Derived features and quantiles: the fitted graph against slow references written with pandas and plain Python."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from data_exchange_center.derived_values import FOLD
from data_exchange_center.errors import DataError, SpecError
from data_exchange_center.feature_operations import CROSS_FACTORS, CROSS_PRIMES, cross_hash
from data_exchange_center.feature_selection import selected
from data_exchange_center.feature_spec import FeatureSpec
from data_exchange_center.graph_nodes import HUGE
from data_exchange_center.vocabulary import FIRST, UNKNOWN
from offline.rank.encoder_fit import EncoderFit
from offline.rank.feature_encoding import FittedEncoder, raw_columns, run_encoder
from offline.rank.stream_statistics import fold_of

SPEC = FeatureSpec.model_validate(
    yaml.safe_load("""
scene: derived
folds: 3
features:
  - {name: n, entity: candidate, type: numeric, default: 7, transform: [log1p, standardize]}
  - {name: bins, entity: candidate, type: numeric, derive: {op: value, inputs: [n]}, transform: [{quantiles: 4}], embedding: 2}
  - {name: capped, entity: candidate, type: numeric, default: -3, derive: {op: value, inputs: [n]}, transform: [{clip: [-2, 9]}]}
  - {name: a, entity: candidate, type: categorical, dtype: int64, default: -1, embedding: 2,
     vocabulary: {policy: learned, min_frequency: 3, missing: true}}
  - {name: b, entity: candidate, type: categorical, dtype: string, vocabulary: {policy: learned}, embedding: 2}
  - {name: d, entity: candidate, type: categorical, dtype: int64, vocabulary: {policy: learned}, embedding: 2}
  - {name: a_d, entity: candidate, type: categorical, dtype: int64, derive: {op: cross, inputs: [a, d]},
     vocabulary: {policy: learned, min_frequency: 2}, embedding: 2}
  - {name: a_count, entity: candidate, type: numeric, derive: {op: count, inputs: [a]}}
  - {name: a_often, entity: candidate, type: numeric, derive: {op: count, inputs: [a], parameters: {min_frequency: 9}}}
  - {name: a_target, entity: candidate, type: numeric, derive: {op: target, inputs: [a], parameters: {strength: 4}}}
  - {name: b_target, entity: candidate, type: numeric, derive: {op: target, inputs: [b], parameters: {strength: 0}}}
  - {name: a_d_target, entity: candidate, type: numeric, derive: {op: target, inputs: [a_d], parameters: {strength: 1}}}
""")
)
ROWS = 240


def fit_rows() -> pd.DataFrame:
    random = np.random.default_rng(5)
    return pd.DataFrame(
        {
            "n": pd.array(random.integers(-4, 40, ROWS) / 2, "Float32").to_numpy(np.float32, na_value=np.nan),
            "a": pd.array(random.choice([10, 20, 30, 2**62, -5], ROWS, p=[0.5, 0.3, 0.15, 0.03, 0.02]), "Int64"),
            "b": random.choice(["x", "y", "ü"], ROWS),
            "d": random.choice([1, 2, 3], ROWS),
            "label": (random.random(ROWS) < 0.3).astype(np.float32),
        }
    ).assign(
        a=lambda frame: frame["a"].mask(random.random(ROWS) < 0.1),
        n=lambda frame: frame["n"].mask(random.random(ROWS) < 0.2),
    )


def columns_of(frame: pd.DataFrame) -> dict[str, pa.Array]:
    kinds = {"n": pa.float32(), "a": pa.int64(), "b": pa.string(), "d": pa.int64()}
    return {name: pa.array(frame[name], kind, from_pandas=True) for name, kind in kinds.items()}


def fitted(frame: pd.DataFrame, batches: int = 1, spec: FeatureSpec = SPEC) -> FittedEncoder:
    fit = EncoderFit(spec, ("int64", "int64"))
    for places in np.array_split(np.arange(len(frame)), batches):
        part = frame.iloc[places]
        fit.see_tokens(columns_of(part), places, part["label"].to_numpy())
    for places in np.array_split(np.arange(len(frame)), batches):
        fit.see_numbers(columns_of(frame.iloc[places]), places)
    return fit.encoder()


FRAME = fit_rows()
ENCODER = fitted(FRAME)
SESSION = ENCODER.session()


def encoded(frame: pd.DataFrame) -> dict[str, np.ndarray]:
    table = pa.table(columns_of(frame))
    return run_encoder(SESSION, raw_columns(ENCODER, table, ("candidate",)))


def rate(rows: pd.Series, strength: float, prior: float) -> float:
    weight = len(rows) + strength
    return float((rows.sum() + strength * prior) / weight) if weight else prior


QUERY = st.fixed_dictionaries(
    {
        "n": st.one_of(
            st.none(), st.floats(width=32, allow_nan=True, allow_infinity=True), st.sampled_from([0.5, -2.0])
        ),
        "a": st.one_of(st.none(), st.sampled_from([10, 20, 30, 2**62, -5, -1]), st.integers(-(2**63), 2**63 - 1)),
        "b": st.sampled_from(["x", "y", "ü", "z", ""]),
        "d": st.one_of(st.sampled_from([1, 2, 3]), st.integers(-(2**63), 2**63 - 1)),
    }
)


def test_every_derived_feature_equals_its_definition() -> None:
    known = FRAME.assign(a=FRAME["a"].fillna(-1).astype("int64"))
    known["a_d"] = [slow_cross(a, d) for a, d in zip(known["a"], known["d"], strict=True)]
    prior = float(known["label"].mean())
    counts = known["a"].value_counts()
    present = FRAME["n"].dropna()
    ordered = sorted(present)
    edges = sorted({next(v for v in ordered if (present <= v).sum() * 4 >= i * len(present)) for i in (1, 2, 3)})
    logs = np.array([math.copysign(math.log1p(abs(v)), v) for v in FRAME["n"].fillna(7.0)])
    frequent = [int(str(token)) for token, rows in counts.items() if rows >= 3 and token != -1]
    crossed = known["a_d"].value_counts()

    @given(st.lists(QUERY, min_size=1, max_size=8))
    @settings(max_examples=150, deadline=None)
    def holds(queries: list[dict[str, Any]]) -> None:
        frame = pd.DataFrame(
            {
                "n": np.array([np.nan if q["n"] is None else q["n"] for q in queries], np.float32),
                "a": pd.array([q["a"] for q in queries], "Int64"),
                "b": [q["b"] for q in queries],
                "d": [q["d"] for q in queries],
            }
        )
        made = encoded(frame)
        for row, query in enumerate(queries):
            number = float(frame["n"][row])
            missing, bounded = math.isnan(number), min(max(number, -HUGE), HUGE)
            a = -1 if query["a"] is None else query["a"]
            cross = slow_cross(a, query["d"])
            log = math.copysign(math.log1p(abs(7.0 if missing else bounded)), 7.0 if missing else bounded)
            scaled = min(max((log - logs.mean()) / logs.std(), -5.0), 5.0)
            assert made["encoded.n"][row] == pytest.approx(scaled, rel=1e-4, abs=1e-5)
            bin_ = UNKNOWN if missing else FIRST + sum(np.float32(number) >= np.float32(edge) for edge in edges)
            assert made["encoded.bins"][row] == bin_
            assert made["encoded.capped"][row] == pytest.approx(min(max(-3.0 if missing else bounded, -2.0), 9.0))
            assert made["encoded.a"][row] == (
                FIRST if a == -1 else FIRST + 1 + frequent.index(a) if a in frequent else UNKNOWN
            )
            assert made["encoded.a_count"][row] == counts.get(a, 0)
            assert made["encoded.a_often"][row] == (counts.get(a, 0) if counts.get(a, 0) >= 9 else 0)
            assert (made["encoded.a_d"][row] == UNKNOWN) == (crossed.get(cross, 0) < 2)
            for name, key, value, strength in (
                ("a_target", "a", a, 4),
                ("b_target", "b", query["b"], 0),
                ("a_d_target", "a_d", cross, 1),
            ):
                wanted = rate(known["label"][known[key] == value], strength, prior)
                assert made[f"encoded.{name}"][row] == pytest.approx(wanted, rel=1e-5)

    holds()


def slow_cross(*ids: int) -> int:
    parts = []
    for prime, factor in zip(CROSS_PRIMES, CROSS_FACTORS, strict=True):
        part = 1
        for one in ids:
            part = (part * factor + one) % prime
        parts.append(part)
    return parts[0] * 2**31 + parts[1]


@given(st.lists(st.tuples(*[st.integers(-(2**63), 2**63 - 1)] * 3), min_size=1, max_size=5))
@settings(max_examples=60, deadline=None)
def test_a_cross_is_the_same_in_numpy_as_in_unbounded_integers(rows: list[tuple[int, ...]]) -> None:
    columns = np.array(rows, np.int64).T
    assert cross_hash(list(columns)).tolist() == [slow_cross(*row) for row in rows]


def test_rows_of_the_fit_see_only_what_other_folds_say_about_them() -> None:
    folds = fold_of(np.arange(ROWS), SPEC.folds)
    raw = raw_columns(ENCODER, pa.table(columns_of(FRAME)), ("candidate",)) | {FOLD: folds}
    made = run_encoder(ENCODER.session(by_fold=True), raw)
    a = FRAME["a"].fillna(-1)
    for row in range(ROWS):
        others = folds != folds[row]
        prior = float(FRAME["label"][others].mean())
        wanted = rate(FRAME["label"][others & (a == a[row])], 4, prior)
        assert made["encoded.a_target"][row] == pytest.approx(wanted, rel=1e-5)
        assert made["encoded.a_count"][row] == (a == a[row]).sum() - 1  # without the row itself


def test_a_rows_own_label_does_not_reach_its_target_encoding() -> None:
    turned = FRAME.assign(label=FRAME["label"].where(FRAME.index != 17, 1 - FRAME["label"]))
    raw = raw_columns(ENCODER, pa.table(columns_of(FRAME)), ("candidate",))
    raw[FOLD] = fold_of(np.arange(ROWS), SPEC.folds)
    before, after = (run_encoder(one.session(by_fold=True), raw) for one in (ENCODER, fitted(turned)))
    for name in ("a_target", "b_target", "a_d_target"):
        assert before[f"encoded.{name}"][17] == after[f"encoded.{name}"][17]
        assert (before[f"encoded.{name}"] != after[f"encoded.{name}"]).any()


def test_batches_make_no_difference() -> None:
    many = fitted(FRAME, batches=7)
    assert many.vocabularies == ENCODER.vocabularies and many.fitted.edges == ENCODER.fitted.edges
    for name, known in (ENCODER.fitted.statistics or {}).items():
        other = (many.fitted.statistics or {})[name]
        assert other.mean == pytest.approx(known.mean) and other.deviation == pytest.approx(known.deviation)
    for name, table in ENCODER.fitted.tables.items():
        assert many.fitted.tables[name].tokens.tolist() == table.tokens.tolist()
        assert (many.fitted.tables[name].positives == table.positives).all()


def test_an_encoder_comes_back_from_disk_as_it_was_and_a_changed_file_is_named(tmp_path: Any) -> None:
    ENCODER.save(tmp_path)
    loaded = FittedEncoder.load(tmp_path, SPEC)
    assert loaded.model().SerializeToString() == ENCODER.model().SerializeToString()
    assert loaded.rows == ENCODER.rows
    path = tmp_path / "token_tables" / "a.parquet"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(bytes(content))
    with pytest.raises(DataError, match=r"a\.parquet"):
        FittedEncoder.load(tmp_path, SPEC)


def test_a_column_without_a_value_and_one_never_seen_are_encoded() -> None:
    empty = FRAME.assign(n=np.float32(np.nan), a=pd.array([None] * ROWS, "Int64"))
    encoder = fitted(empty)
    raw = raw_columns(encoder, pa.table(columns_of(FRAME)), ("candidate",))
    made = run_encoder(encoder.session(), raw)
    assert encoder.rows["bins"] == FIRST + 1 and set(made["encoded.bins"]) == {UNKNOWN, FIRST}
    assert made["encoded.a_count"].max() == ROWS  # the missing value, which every row of the fit had
    assert np.isfinite(made["encoded.n"]).all()


@pytest.mark.parametrize("labels", [None, np.full(ROWS, 0.5, np.float32), np.full(ROWS, np.nan, np.float32)])
def test_labels_that_target_encoding_cannot_use_are_an_error(labels: np.ndarray | None) -> None:
    with pytest.raises(DataError, match=r"labels"):
        EncoderFit(SPEC, ("int64", "int64")).see_tokens(columns_of(FRAME), np.arange(ROWS), labels)


def test_a_run_can_use_some_of_the_features_of_a_fit() -> None:
    chosen = selected(SPEC, ["a_target", "bins"])
    session = ENCODER.selected(chosen).session()
    assert {declared.name for declared in session.get_inputs()} == {"a", "n"}
    assert {declared.name for declared in session.get_outputs()} == {"encoded.a_target", "encoded.bins"}
    with pytest.raises(SpecError, match=r"no feature fits 'a_tarket'; did you mean 'a_target'"):
        selected(SPEC, ["a_tarket"])
    with pytest.raises(SpecError, match="at least 1 item"):
        selected(SPEC, ["-*"])
