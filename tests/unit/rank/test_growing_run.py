"""A run whose ids grow: learns as one with a learned vocabulary does, and what it leaves is no different from that one's."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime as ort
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from data_exchange_center.errors import MarqueeError, SpecError
from data_exchange_center.feature_spec import FeatureSpec, load_spec
from data_exchange_center.growing_features import growing_owners, raw_owners
from data_exchange_center.scored_rows import graph_inputs
from data_exchange_center.workspace import read_table
from offline.models.frozen import frozen
from offline.models.growing import GrowingIds
from offline.rank.click_data import EncodedParts, RawRows
from offline.rank.click_run import TRAINING_ENCODER, new_ranker, open_run, train_run
from offline.rank.click_scores import logits_of
from offline.rank.evaluate import evaluate_run
from offline.rank.export import export_run
from offline.rank.predict import predict_files
from offline.release.s2_pack_scorer import pack_scorer
from offline.training.config import TrainConfig
from tests.factories import make_settings
from tests.unit.rank.click_files import click_files, click_table, files_config

pytestmark = pytest.mark.usefixtures("kept_operators")
FAR = 2**58  # between two ids: nothing that fits into 32 bits


def far_apart(table: pa.Table) -> pa.Table:
    """The rows with ids from all over int64, the missing ones left missing."""
    for name in ("c1", "c2"):
        spread = [None if one is None else one * FAR // (1 if name == "c1" else 8) for one in table[name].to_pylist()]
        table = table.set_column(table.column_names.index(name), name, pa.array(spread, pa.int64()))
    return table


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = click_files(tmp_path_factory.mktemp("rows"))
    for path in folder.glob("*.parquet"):
        pq.write_table(far_apart(pq.read_table(path)), path, row_group_size=150)
    return folder


def config_of(files: Path, output: Path, **values: object) -> TrainConfig:
    """A run of sparse embeddings that grow unless told otherwise."""
    growing = {"optimizer.embeddings.name": "sparse_adamw", "embeddings.grow": ["c*"], "embeddings.admit_after": 25}
    return files_config(files, output, **(growing | values))


@pytest.fixture(scope="module")
def run(files: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that has ended; its last ids are admitted in the second epoch."""
    folder = tmp_path_factory.mktemp("grown")
    train_run(config_of(files, folder))
    return folder


def test_it_learns_as_a_learned_vocabulary_does(files: Path, run: Path, tmp_path: Path) -> None:
    learned = train_run(config_of(files, tmp_path, **{"embeddings.grow": []}))
    test = evaluate_run(run, "test")["evaluated"][0]["auc"]
    assert learned["metrics"]["test"]["auc"] > 0.75
    assert test == pytest.approx(learned["metrics"]["test"]["auc"], abs=0.02)


def test_what_is_judged_in_the_end_is_what_was_judged_while_it_grew(files: Path, run: Path, tmp_path: Path) -> None:
    grown = train_run(config_of(files, run), resume=True)
    admitted = [line["ids"]["admitted"] for line in grown["history"]]
    assert 6 <= admitted[0] < admitted[1] == 6 + 1 + 40  # ids of c1, its missing one, ids of c2
    epochs = evaluate_run(run, "validation", "all")["evaluated"]
    for line, one in zip(grown["history"], epochs, strict=True):
        assert one["auc"] == pytest.approx(line["validation_auc"], abs=1e-6)
        assert one["logloss"] == pytest.approx(line["validation_logloss"], abs=1e-6)


def test_a_run_leaves_a_fixed_vocabulary_of_the_ids_that_own_a_row(run: Path) -> None:
    opened = open_run(run)
    encoder = opened.parts().encoder
    assert set(encoder.vocabularies["c1"].tokens) == {-1, *(n * FAR for n in range(6))}
    assert len(encoder.vocabularies["c2"].tokens) == 40
    assert raw_owners(encoder.spec) == [] and encoder.rows == opened.ranker.config.rows
    assert (run / TRAINING_ENCODER).exists()


def strange(rows: int) -> pa.Table:
    """Rows of which a quarter has ids that no run has seen, and a quarter missing ones."""
    table = far_apart(click_table(rows, 11, labelled=False))
    for name in ("c1", "c2"):
        ids = [None if n % 4 == 1 else 7 + n if n % 4 == 2 else one for n, one in enumerate(table[name].to_pylist())]
        table = table.set_column(table.column_names.index(name), name, pa.array(ids, pa.int64()))
    return table


def test_the_graph_answers_unseen_and_missing_ids_as_the_run_does(run: Path, tmp_path: Path) -> None:
    exported = export_run(run)
    assert exported["parity"]["max_abs_delta"] <= 1e-6
    table = strange(400)
    pq.write_table(table, tmp_path / "strange.parquet")
    predict_files(run, [tmp_path / "strange.parquet"], tmp_path / "out.parquet")
    expected = read_table(tmp_path / "out.parquet")["probability"].to_numpy()
    rows = graph_inputs(open_run(run).spec, exported["inputs"], table)
    (scores,) = ort.InferenceSession(exported["path"]).run(["like"], rows)
    np.testing.assert_allclose(scores, expected, rtol=0, atol=1e-6)
    assert "LabelEncoder" in Path(exported["path"]).read_bytes().decode("latin-1")


def test_a_run_that_grew_is_packed_for_upload(run: Path, tmp_path: Path) -> None:
    export_run(run)
    packed = pack_scorer(make_settings(tmp_path), run)
    vocabulary = Path(packed["path"]) / "vocab_map" / "c2.json"
    assert vocabulary.exists()


def test_the_frozen_network_answers_encoded_ids_as_the_growing_one_answers_raw_ones(
    files: Path, run: Path, tmp_path: Path
) -> None:
    config = config_of(
        files, run, **{"model.members": 2, "embeddings.evict_after_steps": 1, "embeddings.admit_after": 2}
    )
    whole = load_spec(config.features.spec)
    rows = RawRows(config, whole, growing_owners(whole, config.embeddings.grow))
    parts = EncodedParts(config, rows, run / TRAINING_ENCODER, tmp_path)
    ranker = new_ranker(config, parts).train()
    growing = [module for module in ranker.modules() if isinstance(module, GrowingIds)]
    for batch in list(parts.epochs()(1))[:6]:
        for place in range(2):
            ranker.member(place).trunk.assemble(batch.inputs, batch.numbers)
        assert len({one.tick("step") for one in growing}) == 1
    assert growing[0].counts("c2").evicted > 0
    made, vocabularies = frozen(ranker)
    (raw,) = parts.batches("validation")
    ids = raw.inputs["ids.item"].clone()
    for place, name in enumerate(("c1", "c2")):
        ids[:, place] = torch.tensor([vocabularies[name].encode(token) for token in ids[:, place].tolist()])
    fixed = raw._replace(inputs={"ids.item": ids})
    ((_, grown),) = logits_of(ranker, [raw], torch.device("cpu"))
    ((_, froze),) = logits_of(made, [fixed], torch.device("cpu"))
    np.testing.assert_array_equal(froze, grown)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"optimizer.embeddings.name": "adam"}, "sparse_adamw"),
        ({"training.warm_start": "runs/other"}, "warm_start"),
        ({"embeddings.grow": ["i1"]}, "no feature with a vocabulary fits"),
        ({"embeddings.grow": ["d*"]}, "no feature fits 'd\\*'"),
        ({"embeddings.evict_after_epochs": 1, "embeddings.evict_after_steps": 1}, "one of"),
        ({"embeddings.initializer": "xavier"}, "truncated_normal"),
    ],
)
def test_what_cannot_grow_is_named(files: Path, tmp_path: Path, values: dict[str, object], message: str) -> None:
    with pytest.raises(MarqueeError, match=message):
        train_run(config_of(files, tmp_path, **values))


def test_a_run_goes_on_growing_where_another_ended(files: Path, tmp_path: Path) -> None:
    train_run(config_of(files, tmp_path / "first", **{"training.epochs": 2, "training.save_every": 0}))
    later = far_apart(click_table(300, 21))
    ids = [None if one is None else one + 3 for one in later["c1"].to_pylist()]
    later = later.set_column(later.column_names.index("c1"), "c1", pa.array(ids, pa.int64()))
    pq.write_table(later, tmp_path / "later.parquet")
    values = {"data.train": [str(tmp_path / "later.parquet")], "training.warm_start": str(tmp_path / "first")}
    train_run(config_of(files, tmp_path / "next", **values, **{"training.warm_optimizer": True, "training.epochs": 1}))
    before, after = (open_run(tmp_path / name).parts().encoder.vocabularies["c1"].tokens for name in ("first", "next"))
    assert set(before) < set(after) and set(after) - set(before) == {n * FAR + 3 for n in range(6)}


@pytest.mark.parametrize(("dtype", "type_"), [("string", "categorical"), ("int64", "multi_categorical")])
def test_only_single_int64_ids_grow(dtype: str, type_: str) -> None:
    length = {"length": 3} if type_ == "multi_categorical" else {}
    feature = {"name": "tag", "entity": "candidate", "type": type_, "dtype": dtype, "vocabulary": {}, "embedding": 4}
    spec = FeatureSpec.model_validate({"scene": "clicks", "features": [feature | length]})
    with pytest.raises(SpecError, match="'tag' holds .*only single int64 ids grow"):
        growing_owners(spec, ["*"])


def test_raw_ids_are_not_declared(tmp_path: Path) -> None:
    feature = "{name: c1, entity: item, type: categorical, dtype: int64, vocabulary: {policy: raw}, embedding: 4}"
    (tmp_path / "s.yaml").write_text(f"scene: s\nfeatures:\n  - {feature}\n", encoding="utf-8")
    with pytest.raises(SpecError, match="'c1': policy raw is not declared"):
        load_spec(tmp_path / "s.yaml")


def test_growing_rows_learn_by_sparse_adamw_unless_told_otherwise() -> None:
    tree = {"data": {"train": ["a"]}, "training": {"output": "r"}, "embeddings": {"grow": ["c*"]}}
    assert TrainConfig.model_validate(tree).optimizer.embeddings.name == "sparse_adamw"
    chosen = tree | {"optimizer": {"embeddings": {"name": "sparse_adagrad"}}}
    assert TrainConfig.model_validate(chosen).optimizer.embeddings.name == "sparse_adagrad"


def test_rows_begin_as_the_settings_say(files: Path, run: Path, tmp_path: Path) -> None:
    drawn = {"embeddings.initializer": "truncated_normal", "embeddings.deviation": 0.5, "embeddings.grow": []}
    parts = open_run(run).parts()
    tables = {
        name: new_ranker(config_of(files, tmp_path, **values), parts).member(0).trunk.tables.sizes["4"].weight
        for name, values in {"set": drawn, "usual": {"embeddings.grow": []}}.items()
    }
    assert float(tables["set"][1:, :4].std()) > 0.3 and float(tables["set"].abs().max()) <= 1.0
    assert float(tables["usual"][1:, :4].std()) == pytest.approx(0.05, rel=0.2)
    for table in tables.values():
        assert not table[0].any() and not table[:, 4].any()
