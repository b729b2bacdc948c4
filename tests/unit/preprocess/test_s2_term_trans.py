"""The second step: feature rows and snapshots on disk, from the split and the spec."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
import yaml

from data_exchange_center.errors import DataError, SpecError
from data_exchange_center.feature_spec import load_spec
from data_exchange_center.settings import Settings
from data_exchange_center.tables import FEATURE_ROWS, ITEM_FEATURES, USER_FEATURES
from data_exchange_center.workspace import CUTS, Workspace, read_json, read_table, write_table
from offline.preprocess.s1_data_split import split_data
from offline.preprocess.s2_term_trans import compute_features, main
from tests.unit.preprocess.feature_runner import differences
from tests.unit.preprocess.slow_reference import Catalog, Event, item_reference, user_reference


def small(store: Path, **values: object) -> Settings:
    """A small generated dataset."""
    sizes = {"data.synthetic_users": 40, "data.synthetic_items": 60, "data.synthetic_events": 900}
    return Settings().with_values(**{"data.dataset": "synthetic", "data.store": str(store), **sizes, **values})


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """Settings of a workspace with features."""
    chosen = small(tmp_path_factory.mktemp("features"))
    split_data(chosen)
    compute_features(chosen)
    return chosen


def with_features(store: Path, features: list[dict[str, object]], **values: object) -> Settings:
    """The small dataset with a spec of its own."""
    (store / "own.yaml").write_text(yaml.safe_dump({"scene": "own", "features": features}), encoding="utf-8")
    chosen = small(store, **{"features.spec": str(store / "own.yaml"), **values})
    split_data(chosen)
    return chosen


def numeric(name: str, entity: str, **more: object) -> dict[str, object]:
    return {"name": name, "entity": entity, "type": "numeric", **more}


def test_the_newest_rows_alone_have_the_same_features(done: Settings, tmp_path: Path) -> None:
    everything = read_table(Workspace(done).features / "rows.parquet")
    first = int(everything["row_id"][everything.num_rows // 2].as_py())
    alone = small(tmp_path)
    split_data(alone)
    compute_features(alone, ["offline"], first)
    newest = read_table(Workspace(alone).features / "rows.parquet")
    expected = everything.filter(pc.greater_equal(everything["row_id"], first))
    assert newest.num_rows == expected.num_rows > 0
    assert not any(differences(*pair) for pair in zip(newest.to_pylist(), expected.to_pylist(), strict=True))
    assert not (Workspace(alone).snapshot("train")).exists()


def test_the_tables_hold_the_declared_columns_in_order_and_type(done: Settings) -> None:
    spec = load_spec(done.features.spec)
    users = [feature.name for feature in spec.user_features]
    items = [feature.name for feature in spec.item_features]
    folder = Workspace(done).features
    rows = FEATURE_ROWS.validate(read_table(folder / "rows.parquet"))
    assert rows.column_names == [*FEATURE_ROWS.required, *users, *items]
    for cut in ("early", "train", "offline"):
        of_users = USER_FEATURES.validate(read_table(folder / cut / "users.parquet"))
        of_items = ITEM_FEATURES.validate(read_table(folder / cut / "items.parquet"))
        assert of_users.column_names == ["user_id", "timestamp", *users]
        assert of_items.column_names == ["item_id", "timestamp", *items]
        for table in (of_users, of_items):
            for name in table.column_names[2:]:
                assert table.schema.field(name).type == rows.schema.field(name).type
                assert not table[name].null_count
    for feature in (*spec.user_features, *spec.item_features):
        kind = rows.schema.field(feature.name).type
        element = {"float32": pa.float32(), "int64": pa.int64(), "string": pa.string(), "id": pa.int64()}[feature.dtype]
        assert (kind.value_type if feature.is_list else kind) == element
        if feature.type == "dense_vector":
            assert pc.unique(pc.list_value_length(rows[feature.name])).to_pylist() == [feature.length]


def test_online_rows_have_no_features_and_rows_keep_their_order(done: Settings) -> None:
    workspace = Workspace(done)
    split = read_table(workspace.split / "interactions.parquet")
    known = split.filter(pc.not_equal(split["split"], "online"))
    rows = read_table(workspace.features / "rows.parquet")
    for name in FEATURE_ROWS.required:
        assert rows[name].equals(known[name])


def test_without_holdout_every_row_has_features_and_every_cut_a_snapshot(tmp_path: Path) -> None:
    chosen = with_features(tmp_path, [numeric("user_events", "user")], **{"split.holdout": "none"})
    answer = compute_features(chosen)
    assert answer["rows"] == 900
    assert answer["cuts"] == ["early", "train", "offline", "all"]
    assert all((Workspace(chosen).snapshot(cut) / "users.parquet").exists() for cut in answer["cuts"])


def test_snapshots_probe_after_the_last_known_event(done: Settings) -> None:
    workspace = Workspace(done)
    split = read_table(workspace.split / "interactions.parquet")
    train = split.filter(pc.equal(split["split"], "train"))
    last = train.group_by("user_id").aggregate([("timestamp", "max")]).sort_by("user_id")
    users = read_table(workspace.snapshot("train") / "users.parquet")
    items = read_table(workspace.snapshot("train") / "items.parquet")
    assert users["user_id"].to_pylist() == last["user_id"].to_pylist()
    assert users["timestamp"].to_pylist() == [t + 1 for t in last["timestamp_max"].to_pylist()]
    assert users["user_last_timestamp"].to_pylist() == last["timestamp_max"].to_pylist()
    assert set(items["timestamp"].to_pylist()) == {pc.max(train["timestamp"]).as_py() + 1}


def test_the_item_snapshot_holds_every_item_never_seen_ones_with_zeros(done: Settings) -> None:
    workspace = Workspace(done)
    catalog = read_table(workspace.tables / "items.parquet")
    split = read_table(workspace.split / "interactions.parquet")
    seen = split.filter(split["early"]).group_by("item_id").aggregate([([], "count_all")])
    counts = dict(zip(seen["item_id"].to_pylist(), seen["count_all"].to_pylist(), strict=True))
    items = read_table(workspace.snapshot("early") / "items.parquet")
    assert items["item_id"].to_pylist() == sorted(catalog["item_id"].to_pylist())
    assert items["item_events"].to_pylist() == [counts.get(item, 0) for item in items["item_id"].to_pylist()]


def test_rows_that_a_release_may_not_know_change_nothing(done: Settings, tmp_path: Path) -> None:
    """Flipping the labels of the online rows leaves every file as it is; flipping a test row leaves what the train cut knows."""
    workspace = Workspace(done)
    split = read_table(workspace.split / "interactions.parquet")
    for part, same in (("online", ["early", "train", "offline", "rows"]), ("test", ["early", "train"])):
        chosen = small(tmp_path / part)
        other = Workspace(chosen)
        for name in ("users", "items"):
            write_table(other.tables / f"{name}.parquet", read_table(workspace.tables / f"{name}.parquet"))
        flips = pc.and_(pc.equal(split["split"], part), True)
        labels = pc.cast(pc.if_else(flips, pc.subtract(1, split["label"]), split["label"]), pa.int8())
        altered = split.set_column(split.column_names.index("label"), "label", labels)
        write_table(other.split / "interactions.parquet", altered)
        compute_features(chosen)
        for file in sorted(workspace.features.rglob("*.parquet")):
            name = file.relative_to(workspace.features)
            equal = read_table(file).equals(read_table(other.features / name))
            assert equal == (name.parts[0].removesuffix(".parquet") in same), (part, name)


def test_attributes_are_joined_and_missing_ones_become_the_default(tmp_path: Path) -> None:
    spec = [
        {"name": "gender", "entity": "user", "type": "categorical", "dtype": "string", "vocabulary": {}, "embedding": 2},
        numeric("shoe_size", "user", default=42),
        numeric("age", "user", default=0.5),
        {
            "name": "genres", "entity": "item", "type": "multi_categorical", "dtype": "string", "length": 3,
            "vocabulary": {}, "embedding": 2,
        },
    ]  # fmt: skip
    chosen = with_features(tmp_path, spec)
    answer = compute_features(chosen)
    workspace = Workspace(chosen)
    users = read_table(workspace.tables / "users.parquet")
    genders = dict(zip(users["user_id"].to_pylist(), users["gender"].to_pylist(), strict=True))
    rows = read_table(workspace.features / "rows.parquet")
    assert rows["gender"].to_pylist() == [genders[user] for user in rows["user_id"].to_pylist()]
    assert set(rows["shoe_size"].to_pylist()) == {42.0}
    assert answer["defaults_for"] == ["shoe_size"]
    assert pa.types.is_list(rows.schema.field("genres").type)


def test_a_feature_that_nothing_provides_is_named(tmp_path: Path) -> None:
    chosen = with_features(tmp_path, [numeric("user_eventz", "user")])
    with pytest.raises(SpecError, match="'user_eventz': no expression computes it") as raised:
        compute_features(chosen)
    assert raised.value.field == "user_eventz"
    assert not Workspace(chosen).features.exists()


@pytest.mark.parametrize(
    ("lengths", "message"),
    [
        ({"user_term_events": 20, "item_terms": 10}, "lengths must agree"),
        ({"user_decade_events": 10}, "'user_decade_events' has length 10; decade arrays have 9"),
    ],
)
def test_arrays_of_contradicting_lengths_are_refused(tmp_path: Path, lengths: dict[str, int], message: str) -> None:
    spec = [
        {"name": name, "entity": name.split("_")[0], "type": "dense_vector", "length": length}
        for name, length in lengths.items()
    ]
    with pytest.raises(SpecError, match=message):
        compute_features(with_features(tmp_path, spec))


def test_term_arrays_follow_the_published_axis(done: Settings) -> None:
    workspace = Workspace(done)
    axes = read_json(workspace.features / "axes.json")
    items = read_table(workspace.snapshot("offline") / "items.parquet")
    for genres, flags in zip(items["genres"].to_pylist(), items["item_terms"].to_pylist(), strict=True):
        expected = [float(term in genres) for term in axes["terms"]]
        assert flags == expected + [0.0] * (axes["term_length"] - len(expected))


def test_histories_are_cut_to_the_declared_length(tmp_path: Path) -> None:
    history = {"entity": "user", "type": "sequence", "length": 3, "cross_only": True}
    spec = [{"name": "history_items", "dtype": "id", **history}, {"name": "history_labels", **history}]
    chosen = with_features(tmp_path, spec, **{"features.history_length": 8})
    compute_features(chosen)
    rows = read_table(Workspace(chosen).features / "rows.parquet")
    assert max(len(items) for items in rows["history_items"].to_pylist()) == 3


def test_a_missing_split_names_the_file_and_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="interactions.parquet: not there; run the step"):
        compute_features(small(tmp_path))


def test_a_broken_split_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    chosen = small(tmp_path)
    split_data(chosen)
    file = Workspace(chosen).split / "interactions.parquet"
    pq.write_table(read_table(file).drop_columns(["label"]), file)
    with pytest.raises(DataError, match="'label' is missing"):
        compute_features(chosen)
    assert not Workspace(chosen).features.exists()


def test_an_empty_cut_is_named(tmp_path: Path) -> None:
    chosen = small(tmp_path)
    split_data(chosen)
    file = Workspace(chosen).split / "interactions.parquet"
    table = read_table(file)
    nothing = pa.array([False] * table.num_rows)
    write_table(file, table.set_column(table.column_names.index("early"), "early", nothing))
    with pytest.raises(DataError, match="no event is known at cut 'early'"):
        compute_features(chosen)


def test_the_program_prints_one_json_object_last(done: Settings, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--dataset", "synthetic", "--store", done.data.store, "--quiet"])
    assert ended.value.code == 0
    answer = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (answer["step"], answer["ok"], answer["tables"]["rows.parquet"]["rows"]) == ("s2_term_trans", True, 500)


def test_movielens_100k_rows_agree_with_the_slow_reference(ml100k: Path, tmp_path: Path) -> None:
    chosen = Settings().with_values(**{"data.store": str(tmp_path), "data.source": str(ml100k)})
    split_data(chosen)
    answer = compute_features(chosen)
    assert {name: part["rows"] for name, part in answer["tables"].items()} == {
        **{f"{cut}/{table}.parquet": rows for cut in CUTS[:3] for table, rows in (("users", 943), ("items", 1682))},
        "offline/item_standing.parquet": 1682,
        "offline/user_recent.parquet": 943,
        "rows.parquet": 90_570,
    }
    workspace = Workspace(chosen)
    items = read_table(workspace.tables / "items.parquet").to_pylist()
    axes = read_json(workspace.features / "axes.json")
    catalog = Catalog(
        {item["item_id"]: item["genres"] for item in items},
        {item["item_id"]: item["year"] for item in items},
        axes["terms"],
        axes["term_length"],
    )
    split = read_table(workspace.split / "interactions.parquet")
    known = split.filter(pc.not_equal(split["split"], "online")).to_pylist()
    events = [Event(e["user_id"], e["item_id"], e["timestamp"], e["label"], e["rating"]) for e in known]
    rows = read_table(workspace.features / "rows.parquet")
    few = pc.and_(pc.less(rows["user_events"], 14), pc.less(rows["item_events"], 14))
    for row in rows.filter(pc.and_(few, pc.greater(rows["user_events"], 10))).to_pylist()[:3]:
        of_user = user_reference(events, catalog, row["user_id"], row["timestamp"], chosen.features.history_length)
        of_item = item_reference(events, catalog, row["item_id"], row["timestamp"])
        expected = {name: value for name, value in {**of_user, **of_item}.items() if name in row}
        assert not differences({name: row[name] for name in expected}, expected), row["row_id"]
