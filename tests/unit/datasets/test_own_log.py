"""One's own log: each kind of label with int and string ids, CSV and Parquet, and what is said about broken rows."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from data_exchange_center.errors import DataError, DataUnavailable
from data_exchange_center.settings import ROOT
from offline.datasets.canonical import Dataset
from offline.datasets.own_log import own_log_fingerprint, read_own_log, superseded

HOUR = 3600
# user, item, seconds, event, stars, taken
EVENTS = [
    (1, 10, 1_700_000_000, "view", 2.0, 0),
    (1, 10, 1_700_000_060, "buy", 5.0, 1),
    (1, 11, 1_700_000_100, "view", 3.0, 0),
    (2, 10, 1_700_000_200, "scroll", 1.0, 0),
    (2, 11, 1_700_000_300, "buy", 4.0, 1),
    (2, 11, 1_700_000_300 + 9 * HOUR, "view", 3.5, 0),
]
LABELS: dict[str, dict[str, Any]] = {
    "rating": {"kind": "rating", "column": "stars", "above": 3.0, "scale": [1, 5]},
    "events": {"kind": "events", "column": "what", "positive": ["buy"], "ignore": ["scroll"]},
    "impressions": {
        "kind": "impressions", "column": "what", "positive": ["buy"], "impression": ["view"], "ignore": ["scroll"],
        "window": HOUR,
    },
    "outcome": {"kind": "outcome", "column": "taken"},
    "positives_only": {"kind": "positives_only"},
}  # fmt: skip
# position -> label of the rows that stay
EXPECTED = {
    "rating": {0: 0, 1: 1, 2: 0, 3: 0, 4: 1, 5: 1},
    "events": {0: 0, 1: 1, 2: 0, 4: 1, 5: 0},
    "impressions": {1: 1, 2: 0, 4: 1, 5: 0},
    "outcome": {0: 0, 1: 1, 2: 0, 3: 0, 4: 1, 5: 0},
    "positives_only": {0: 1, 1: 1, 2: 1, 3: 1, 4: 1, 5: 1},
}


def frame(ids: str) -> pd.DataFrame:
    """The events with ids of a type."""
    made = pd.DataFrame(EVENTS, columns=["who", "thing", "at", "what", "stars", "taken"])
    if ids == "string":
        made["who"] = "u" + made["who"].astype(str)
        made["thing"] = "i/" + made["thing"].astype(str)
    return made


def mapping(file: str, labels: dict[str, Any], ids: str = "int64", unit: str = "s", **more: Any) -> dict[str, Any]:
    """The YAML's content."""
    return {
        "interactions": {
            "file": file,
            "user": {"column": "who", "type": ids},
            "item": {"column": "thing", "type": ids},
            "time": {"column": "at", "unit": unit},
            "labels": labels,
        },
        **more,
    }


def read(folder: Path, content: dict[str, Any]) -> Dataset:
    """Writes the YAML into the folder and reads the log."""
    path = folder / "mine.yaml"
    path.write_text(yaml.safe_dump(content), encoding="utf-8")
    return read_own_log(path, folder, positive_above=3.0)


def times_in(frame_: pd.DataFrame, unit: str) -> pd.DataFrame:
    """The frame with its times written in a unit."""
    moments = pd.to_datetime(frame_["at"], unit="s", utc=True)
    written = {
        "s": frame_["at"],
        "ms": frame_["at"] * 1000 + 999,
        "iso": moments.dt.tz_convert("Asia/Kolkata").map(lambda one: one.isoformat()),
    }
    return frame_.assign(at=written[unit])


@pytest.mark.parametrize("ids", ["int64", "string"])
@pytest.mark.parametrize("kind", LABELS)
@pytest.mark.parametrize("form", ["csv", "tsv", "csv.gz", "parquet"])
def test_each_kind_of_label_with_each_kind_of_id(tmp_path: Path, kind: str, ids: str, form: str) -> None:
    file = tmp_path / f"log.{form}"
    log = frame(ids)
    if form == "parquet":
        log.to_parquet(file, index=False)
    else:
        log.to_csv(file, index=False, sep="\t" if form == "tsv" else ",")
    dataset = read(tmp_path, mapping(file.name, LABELS[kind], ids))
    events = dataset.interactions
    assert dict(zip(events["position"].to_pylist(), events["label"].to_pylist(), strict=True)) == EXPECTED[kind]
    assert str(events.schema.field("user_id").type) == ids == str(events.schema.field("item_id").type)
    kept = log.iloc[events["position"].to_pylist()]
    assert events["user_id"].to_pylist() == kept["who"].tolist()
    assert events["item_id"].to_pylist() == kept["thing"].tolist()
    assert events["timestamp"].to_pylist() == kept["at"].tolist()
    assert events["rating"].null_count == (0 if kind == "rating" else len(kept))
    assert dataset.labels == {"rating": "ratings"}.get(kind, kind)
    assert dataset.rows_read == len(EVENTS)


@pytest.mark.parametrize("unit", ["s", "ms", "iso"])
@pytest.mark.parametrize("form", ["csv", "parquet"])
def test_times_in_any_unit_become_unix_seconds(tmp_path: Path, unit: str, form: str) -> None:
    log = times_in(frame("int64"), unit)
    if form == "csv":
        log.to_csv(tmp_path / "log.csv", index=False)
    else:
        log.to_parquet(tmp_path / "log.parquet", index=False)
    dataset = read(tmp_path, mapping(f"log.{form}", LABELS["positives_only"], unit=unit))
    assert dataset.interactions["timestamp"].to_pylist() == [event[2] for event in EVENTS]


@pytest.mark.parametrize("zone", [None, "UTC", "America/New_York"])
@pytest.mark.parametrize("resolution", ["ms", "ns"])
def test_parquet_timestamps_are_taken_as_they_are(tmp_path: Path, zone: str | None, resolution: str) -> None:
    times = pa.array([event[2] for event in EVENTS]).cast(pa.timestamp("s", zone)).cast(pa.timestamp(resolution, zone))
    log = frame("int64")
    pq.write_table(pa.table({"who": log["who"], "thing": log["thing"], "at": times}), tmp_path / "log.parquet")
    dataset = read(tmp_path, mapping("log.parquet", LABELS["positives_only"], unit="iso"))
    assert dataset.interactions["timestamp"].to_pylist() == [event[2] for event in EVENTS]


def test_a_time_without_an_offset_is_utc_and_a_date_is_its_midnight(tmp_path: Path) -> None:
    (tmp_path / "log.csv").write_text(
        "who,thing,at\n1,1,2024-01-01 00:00:01\n1,2,2024-01-01\n1,3,2024-01-01T01:00:00.9+01:00\n"
    )
    dataset = read(tmp_path, mapping("log.csv", LABELS["positives_only"], unit="iso"))
    assert dataset.interactions["timestamp"].to_pylist() == [1_704_067_201, 1_704_067_200, 1_704_067_200]


def test_several_files_are_read_in_the_order_of_their_names(tmp_path: Path) -> None:
    log = frame("int64")
    (tmp_path / "days").mkdir()
    log.iloc[3:].to_csv(tmp_path / "days" / "2.csv", index=False)
    log.iloc[:3].to_csv(tmp_path / "days" / "1.csv", index=False)
    dataset = read(tmp_path, mapping("days/*.csv", LABELS["positives_only"]))
    assert dataset.interactions["timestamp"].to_pylist() == log["at"].tolist()


def test_items_and_users_bring_terms_year_title_and_attributes(tmp_path: Path) -> None:
    frame("string").to_csv(tmp_path / "log.csv", index=False)
    (tmp_path / "items.csv").write_text(
        'sku,name,tags,released,price\ni/10,"Kettle, ""big""",a; b;a,2019-05-01,1.5\ni/11,,,soon,\ni/12,Unsold,c,1999,2\n'
    )
    (tmp_path / "users.csv").write_text("id,Age Group,score\nu1,30-39,7\nu2,,\n")
    items = {
        "file": "items.csv", "id": "sku", "title": "name", "terms": {"column": "tags", "separator": ";"}, "year": "released",
        "attributes": {"price": "float32"},
    }  # fmt: skip
    users = {
        "file": "users.csv",
        "id": "id",
        "attributes": {"age_group": {"column": "Age Group", "type": "string"}, "score": "int64"},
    }
    dataset = read(tmp_path, mapping("log.csv", LABELS["rating"], "string", items=items, users=users))
    assert dataset.items.to_pylist() == [
        {"item_id": "i/10", "title": 'Kettle, "big"', "genres": ["a", "b"], "year": 2019, "price": 1.5},
        {"item_id": "i/11", "title": "", "genres": [], "year": 0, "price": None},
        {"item_id": "i/12", "title": "Unsold", "genres": ["c"], "year": 1999, "price": 2.0},
    ]
    assert dataset.users.to_pylist() == [
        {"user_id": "u1", "age_group": "30-39", "score": 7},
        {"user_id": "u2", "age_group": None, "score": None},
    ]


def test_terms_may_be_a_list_in_parquet(tmp_path: Path) -> None:
    frame("int64").to_csv(tmp_path / "log.csv", index=False)
    pq.write_table(
        pa.table({"id": pa.array([10, 11], pa.int32()), "tags": [["x", "y"], None]}), tmp_path / "items.parquet"
    )
    items = {"file": "items.parquet", "id": "id", "terms": {"column": "tags"}}
    dataset = read(tmp_path, mapping("log.csv", LABELS["rating"], items=items))
    assert dataset.items.to_pylist() == [{"item_id": 10, "genres": ["x", "y"]}, {"item_id": 11, "genres": []}]


def test_without_files_of_their_own_users_and_items_are_those_of_the_log(tmp_path: Path) -> None:
    frame("int64").to_csv(tmp_path / "log.csv", index=False)
    dataset = read(tmp_path, mapping("log.csv", LABELS["rating"]))
    assert dataset.users.to_pydict() == {"user_id": [1, 2]}
    assert dataset.items.to_pydict() == {"item_id": [10, 11]}


def test_one_run_names_every_kind_of_problem_in_every_file(tmp_path: Path) -> None:
    (tmp_path / "log.csv").write_text(
        'who,thing,at,what\nu1,"a\nb",1700000000,buy\n,i1,1700000000,buy\nu1,i1,soon,buy\nu1,,later,view\nu1,i1,1700000000\n'
    )
    (tmp_path / "items.csv").write_text("id,price\ni1,cheap\ni2,2\n")
    items = {"file": "items.csv", "id": "id", "attributes": {"price": "float32"}}
    with pytest.raises(DataError) as error:
        read(tmp_path, mapping("log.csv", LABELS["events"], "string", items=items))
    says = error.value.message
    assert "'at' cannot be parsed: 2 row(s) refused" in says
    assert "log.csv:5: at = 'soon'" in says  # a quoted line break before it does not mislead
    assert "log.csv:7: 3 fields" in says
    assert "items.csv:2: price = 'cheap'" in says


@pytest.mark.parametrize("form", ["csv", "parquet"])
def test_empty_ids_and_times_are_refused_with_their_row(tmp_path: Path, form: str) -> None:
    log = times_in(frame("string"), "iso").astype({"who": object})
    log.loc[2, "who"] = None
    log.loc[[3, 4], "at"] = ["yesterday", "2024-13-01"]
    if form == "csv":
        log.to_csv(tmp_path / "log.csv", index=False)
    else:
        log.to_parquet(tmp_path / "log.parquet", index=False)
    with pytest.raises(DataError) as error:
        read(tmp_path, mapping(f"log.{form}", LABELS["positives_only"], "string", "iso"))
    first_user, first_time = ("log.csv:4", "log.csv:5") if form == "csv" else ("log.parquet row 3", "log.parquet row 4")
    assert f"'who' is empty or not text: 1 row(s) refused, first {tmp_path}/{first_user}" in error.value.message
    assert (
        f"not a time in ISO 8601: 2 row(s) refused, first {tmp_path}/{first_time}: at = 'yesterday'"
        in error.value.message
    )


def test_an_outcome_other_than_yes_or_no_is_refused(tmp_path: Path) -> None:
    frame("int64").assign(taken=["1", "True", "0.0", "false", "maybe", ""]).to_csv(tmp_path / "log.csv", index=False)
    with pytest.raises(
        DataError, match=r"not 0, 1, true or false: 2 row\(s\) refused, first .*log.csv:6: taken = 'maybe'"
    ):
        read(tmp_path, mapping("log.csv", LABELS["outcome"]))


def test_ids_never_come_from_fractions(tmp_path: Path) -> None:
    frame("int64").astype({"who": float}).to_parquet(tmp_path / "log.parquet", index=False)
    with pytest.raises(DataError, match="column 'who' is double, and cannot be an integer"):
        read(tmp_path, mapping("log.parquet", LABELS["rating"]))


def test_strange_rows_are_counted_and_named(tmp_path: Path) -> None:
    log = pd.concat([frame("int64"), frame("int64").iloc[[0, 5]], frame("int64").iloc[[1]].assign(stars=9)])
    log.to_csv(tmp_path / "log.csv", index=False)
    (tmp_path / "items.csv").write_text("id\n10\n10\n12\n")
    dataset = read(tmp_path, mapping("log.csv", LABELS["rating"], items={"file": "items.csv", "id": "id"}))
    assert [
        (one.problem, one.rows, one.action, one.first.split(": ")[0].rsplit("/")[-1]) for one in dataset.findings
    ] == [
        ("item_id was there before", 1, "dropped", "items.csv:3"),
        ("rating not on the scale 1 to 5", 1, "dropped", "log.csv:10"),
        ("exact repetition of an earlier row", 2, "dropped", "log.csv:8"),
        ("item_id not in its own file", 3, "kept", "log.csv:4"),
    ]
    assert dataset.items["item_id"].to_pylist() == [10, 12, 11]


def test_two_different_events_in_one_second_are_both_kept(tmp_path: Path) -> None:
    (tmp_path / "log.csv").write_text("who,thing,at,what\n1,1,1700000000,buy\n1,1,1700000000,like\n")
    labels = {"kind": "events", "column": "what", "positive": ["buy", "like"]}
    assert read(tmp_path, mapping("log.csv", labels)).interactions["event"].to_pylist() == ["buy", "like"]


def test_an_event_that_the_yaml_does_not_name_is_no_impression(tmp_path: Path) -> None:
    frame("int64").to_csv(tmp_path / "log.csv", index=False)
    labels = {key: value for key, value in LABELS["impressions"].items() if key != "ignore"}
    dataset = read(tmp_path, mapping("log.csv", labels))
    found = {one.problem: one.first.split("/")[-1] for one in dataset.findings}
    assert found["event that the YAML does not name"] == "log.csv:5: user_id 2, item_id 10, event 'scroll'"


def test_times_in_another_unit_are_refused_not_moved_to_another_age(tmp_path: Path) -> None:
    frame("int64").to_csv(tmp_path / "log.csv", index=False)
    with pytest.raises(DataError, match=r"lie between 1970-01-20 and 1970-01-20; .*give the unit s"):
        read(tmp_path, mapping("log.csv", LABELS["rating"], unit="ms"))
    times_in(frame("int64"), "ms").to_csv(tmp_path / "log.csv", index=False)
    with pytest.raises(DataError, match=r"read as s, the times of 'at' .*give the unit ms"):
        read(tmp_path, mapping("log.csv", LABELS["rating"], unit="s"))


@pytest.mark.parametrize(
    ("labels", "says"),
    [
        (LABELS["events"] | {"positive": ["Buy"]}, r"'what' holds 'view' \(3\), 'buy' \(2\): correct `positive`"),
        (LABELS["rating"] | {"above": 5}, r"ratings in 'stars' go from 1 to 5: set `above`"),
    ],
)
def test_a_log_without_a_positive_is_refused_with_what_it_holds(
    tmp_path: Path, labels: dict[str, Any], says: str
) -> None:
    frame("int64").to_csv(tmp_path / "log.csv", index=False)
    with pytest.raises(DataError, match=says):
        read(tmp_path, mapping("log.csv", labels))


def test_an_event_of_the_yaml_that_no_row_has_is_reported(tmp_path: Path) -> None:
    frame("int64").to_csv(tmp_path / "log.csv", index=False)
    dataset = read(tmp_path, mapping("log.csv", LABELS["events"] | {"positive": ["buy", "Like"]}))
    assert [str(one) for one in dataset.findings if "Like" in one.problem] == [
        "event 'Like' of the YAML is in no row: there are 'view', 'buy', 'scroll'"
    ]


@pytest.mark.parametrize("encoding", ["utf-16", "latin-1", "UTF8"])
def test_the_header_is_read_in_the_declared_encoding(tmp_path: Path, encoding: str) -> None:
    frame("string").rename(columns={"who": "wér"}).to_csv(tmp_path / "log.csv", index=False, encoding=encoding)
    content = mapping("log.csv", LABELS["rating"], "string")
    content["interactions"] |= {"encoding": encoding, "user": {"column": "wér", "type": "string"}}
    assert read(tmp_path, content).interactions["user_id"].to_pylist()[0] == "u1"


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"who;thing;at\n1;1;1\n", "fields seem to be separated by ';': set `separator`"),
        ("who,thing,at\n".encode("utf-16"), "no text in the encoding utf-8"),
        (b"PK\x03\x04\x00\x00", "no text in the encoding utf-8"),
        (b"who, thing, at\n1, 1, 1\n", "names hold spaces at their ends"),
        (b"who,thing,at\n", "the log has no rows"),
    ],
)
def test_a_file_that_is_written_otherwise_says_how(tmp_path: Path, content: bytes, says: str) -> None:
    (tmp_path / "log.csv").write_bytes(content)
    with pytest.raises(DataError, match=says):
        read(tmp_path, mapping("log.csv", LABELS["positives_only"]))


def test_a_file_name_may_hold_what_patterns_are_made_of(tmp_path: Path) -> None:
    frame("int64").to_csv(tmp_path / "log[1].csv", index=False)
    assert read(tmp_path, mapping("log[1].csv", LABELS["rating"])).rows_read == len(EVENTS)


def test_items_in_parquet_may_leave_out_values_as_their_writer_likes(tmp_path: Path) -> None:
    frame("int64").to_csv(tmp_path / "log.csv", index=False)
    pq.write_table(
        pa.table({
            "id": [10, 11],
            "tags": [["x", None, " y ", "", "x"], []],
            "price": [float("nan"), 2.0],
            "made": [1999.0, None],
        }),
        tmp_path / "items.parquet",
    )  # fmt: skip
    items = {
        "file": "items.parquet", "id": "id", "terms": {"column": "tags"}, "year": "made", "attributes": {"price": "float32"},
    }  # fmt: skip
    dataset = read(tmp_path, mapping("log.csv", LABELS["rating"], items=items))
    assert dataset.items.to_pylist() == [
        {"item_id": 10, "genres": ["x", "y"], "year": 1999, "price": None},
        {"item_id": 11, "genres": [], "year": 0, "price": 2.0},
    ]


def test_terms_that_are_no_text_are_refused(tmp_path: Path) -> None:
    frame("int64").to_csv(tmp_path / "log.csv", index=False)
    pq.write_table(pa.table({"id": [10], "tags": [[{"name": "x"}]]}), tmp_path / "items.parquet")
    with pytest.raises(DataError, match="column 'tags' is list.*terms are text or a list of text"):
        read(
            tmp_path,
            mapping(
                "log.csv", LABELS["rating"], items={"file": "items.parquet", "id": "id", "terms": {"column": "tags"}}
            ),
        )


@pytest.mark.parametrize("kind", [pa.date32(), pa.timestamp("us")])
def test_a_date_in_parquet_is_its_midnight_and_has_its_year(tmp_path: Path, kind: pa.DataType) -> None:
    days = pa.array([19_000 + place for place in range(len(EVENTS))], pa.int32()).cast(pa.date32()).cast(kind)
    log = pa.table({"who": frame("int64")["who"], "thing": frame("int64")["thing"], "at": days})
    pq.write_table(log, tmp_path / "log.parquet")
    items = {"file": "log.parquet", "id": "thing", "year": "at"}
    dataset = read(tmp_path, mapping("log.parquet", LABELS["positives_only"], items=items))
    assert dataset.interactions["timestamp"].to_pylist()[:2] == [19_000 * 86_400, 19_001 * 86_400]
    assert dataset.items["year"].to_pylist() == [2022, 2022]


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(0, 2), st.integers(0, 2), st.integers(1, 12), st.booleans()), min_size=1, max_size=40
    ),
    st.one_of(st.none(), st.integers(0, 6)),
)
def test_an_impression_is_superseded_exactly_when_a_positive_follows(
    events: list[tuple[int, int, int, bool]], window: int | None
) -> None:
    users, items, times, positive = (list(column) for column in zip(*events, strict=True))
    table = pa.table(
        {
            "user_id": users,
            "item_id": items,
            "timestamp": times,
            "label": pa.array([int(one) for one in positive], pa.int8()),
        }
    )
    expected = [
        not mine[3]
        and any(
            other[3] and other[:2] == mine[:2] and 0 <= other[2] - mine[2] <= (99 if window is None else window)
            for other in events
        )
        for mine in events
    ]
    np.testing.assert_array_equal(superseded(table, window), expected)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"interactions": {"time": {"column": "at", "unit": "minutes"}}}, "interactions.time.unit"),
        ({"interactions": {"user": {"column": "who", "type": "float"}}}, "interactions.user.type"),
        ({"interactions": {"labels": {"kind": "clicks"}}}, "interactions.labels"),
        ({"interactions": {"labels": {"kind": "events", "column": "what", "positive": []}}}, "positive"),
        ({"interactions": {"separator": "¦"}}, "a separator is one ASCII character"),
        ({"interactions": {"encoding": "utf-99"}}, "unknown encoding 'utf-99'"),
        ({"interactions": {"labels": LABELS["rating"] | {"scale": [5, 1]}}}, "scale is [lowest, highest]"),
        ({"interactions": {"labels": LABELS["impressions"] | {"impression": ["buy"]}}}, "'buy' cannot be a positive"),
        ({"interactions": {"colour": "red"}}, "interactions.colour: Extra inputs"),
        ({"items": {"file": "items.csv", "id": "id", "attributes": {"genres": "string"}}}, "attribute 'genres'"),
    ],
)
def test_a_wrong_yaml_is_refused_with_the_field(tmp_path: Path, change: dict[str, Any], says: str) -> None:
    frame("int64").to_csv(tmp_path / "log.csv", index=False)
    content = mapping("log.csv", LABELS["rating"])
    for section, values in change.items():
        content[section] = {**content.get(section, {}), **values}
    with pytest.raises(DataError, match=re.escape(says)):
        read(tmp_path, content)


def test_what_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(DataUnavailable, match=r"mine.yaml: no such file; give the YAML"):
        read_own_log(tmp_path / "mine.yaml", tmp_path, 3.0)
    with pytest.raises(DataUnavailable, match=r"gone.csv: no such file"):
        read(tmp_path, mapping("gone.csv", LABELS["rating"]))
    frame("int64").drop(columns="stars").to_csv(tmp_path / "log.csv", index=False)
    with pytest.raises(DataError, match=r"log.csv:1: column 'stars' is missing \(has who, thing"):
        read(tmp_path, mapping("log.csv", LABELS["rating"]))
    (tmp_path / "mine.yaml").write_text("interactions: [")
    with pytest.raises(DataError, match="not valid YAML"):
        read_own_log(tmp_path / "mine.yaml", tmp_path, 3.0)


def test_the_fingerprint_follows_the_yaml_and_every_file(tmp_path: Path) -> None:
    frame("int64").to_csv(tmp_path / "log.csv", index=False)
    read(tmp_path, mapping("log.csv", LABELS["rating"]))
    prints = [own_log_fingerprint(tmp_path / "mine.yaml", tmp_path)]
    (tmp_path / "log.csv").write_text((tmp_path / "log.csv").read_text() + "1,10,1700009999,view,2.0,0\n")
    prints.append(own_log_fingerprint(tmp_path / "mine.yaml", tmp_path))
    read(tmp_path, mapping("log.csv", LABELS["outcome"]))
    prints.append(own_log_fingerprint(tmp_path / "mine.yaml", tmp_path))
    assert len(set(prints)) == 3


def test_the_worked_example_of_the_documentation_does_what_it_says(tmp_path: Path) -> None:
    text = (ROOT / "docs" / "own_log.md").read_text(encoding="utf-8")
    blocks = re.findall(r"`shop/([\w.]+)`\n\n```\w+\n(.*?)```", text, flags=re.DOTALL)
    assert [name for name, _ in blocks] == ["events.csv", "products.csv", "customers.csv", "shop.yaml"]
    for name, content in blocks:
        (tmp_path / name).write_text(content, encoding="utf-8")
    dataset = read_own_log(tmp_path / "shop.yaml", tmp_path, positive_above=3.0)
    assert (dataset.rows_read, dataset.interactions.num_rows) == (8, 5)
    assert dataset.interactions["label"].to_pylist() == [1, 0, 0, 0, 1]
    assert dataset.items["genres"].to_pylist() == [["kitchen", "electric"], ["kitchen"], ["living room", "electric"]]
    assert dataset.items["year"].to_pylist() == [2019, 2021, 0]
    assert dataset.users["age_group"].to_pylist() == ["30-39", None]
