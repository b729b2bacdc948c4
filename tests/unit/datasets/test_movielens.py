"""Every MovieLens layout gives the same tables, from a folder or an archive, and broken rows are named by file and line."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from data_exchange_center.errors import DataError, DataUnavailable
from data_exchange_center.tables import STRINGS
from offline.datasets.canonical import Dataset
from offline.datasets.movielens import OCCUPATIONS_1M, movielens_fingerprint, read_movielens
from offline.datasets.synthetic import generate
from tests.unit.datasets.movielens_files import WRITERS, replace_line, zipped


@pytest.fixture(scope="module")
def small() -> Dataset:
    """Generated data whose titles hold everything that a format may stumble over."""
    made = generate(users=40, items=60, events=900, seed=1)
    titles = made.items["title"].to_pylist()
    titles[:4] = ['Good, the "Bad" (1966)', "Amélie: 24 h (1998)", "Land Before: V (1995) (V)", "Untitled"]
    years = made.items["year"].to_pylist()
    years[:4] = [1966, 1998, 1995, 0]
    genres = made.items["genres"].to_pylist()
    genres[3] = []
    items = pa.table(
        {
            "item_id": made.items["item_id"],
            "title": pa.array(titles),
            "genres": pa.array(genres, STRINGS),
            "year": pa.array(years),
        }
    )
    occupations = pa.array([OCCUPATIONS_1M[place % 21] for place in range(40)])
    users = made.users.set_column(made.users.column_names.index("occupation"), "occupation", occupations)
    return Dataset(users, items, made.interactions, "ratings", made.rows_read)


@pytest.mark.parametrize("layout", WRITERS)
@pytest.mark.parametrize("form", ["folder", "nested folder", "zip", "nested zip"])
def test_each_layout_reads_back_as_it_was_written(small: Dataset, tmp_path: Path, layout: str, form: str) -> None:
    written = WRITERS[layout](small, tmp_path / "top" / "ml-set")
    source = {"folder": written, "nested folder": tmp_path / "top"}.get(form)
    if source is None:
        source = zipped(written, tmp_path / "set.zip", "ml-set" if form == "nested zip" else "")
    read = read_movielens(source, positive_above=3.0)
    assert read.interactions.equals(small.interactions.select(read.interactions.column_names))
    assert read.items.equals(small.items)
    if layout == "csv":
        seen = pc.unique(small.interactions["user_id"])
        assert read.users.column_names == ["user_id"]
        assert read.users["user_id"].to_pylist() == sorted(seen.to_pylist())
    else:
        assert read.users.equals(small.users.select(read.users.column_names))
    assert read.findings == ()


@pytest.mark.parametrize("ending", ["\n", "\r\n"])
def test_line_endings_do_not_matter(small: Dataset, tmp_path: Path, ending: str) -> None:
    for layout, write in WRITERS.items():
        folder = write(small, tmp_path / layout)
        for path in folder.iterdir():
            path.write_bytes(path.read_bytes().replace(b"\r\n", b"\n").replace(b"\n", ending.encode()))
        read = read_movielens(folder, positive_above=3.0)
        assert read.items.equals(small.items)
        assert read.interactions.num_rows == small.interactions.num_rows


def test_the_threshold_of_a_positive_is_strict(small: Dataset, tmp_path: Path) -> None:
    read = read_movielens(WRITERS["csv"](small, tmp_path), positive_above=4.0)
    assert read.interactions["label"].to_pylist() == [int(r > 4) for r in small.interactions["rating"].to_pylist()]


@pytest.mark.parametrize(
    ("layout", "file", "line", "text", "says"),
    [
        ("100k", "u.data", 7, "3\t5\tfour\t874724710", "rating = 'four'"),
        ("100k", "u.data", 8, "3\t5\t4", "3 fields"),
        ("100k", "u.user", 2, "2|old|F|writer|12345", "age = 'old'"),
        ("100k", "u.item", 5, "5|Broken (1990)|01-Jan-1990", "3 fields"),
        ("1m", "ratings.dat", 9, "1::2::3::4::5", "5 fields"),
        ("1m", "ratings.dat", 9, "one::2::3::874724710", "user_id = 'one'"),
        ("1m", "movies.dat", 1, "1:Toy Story (1995):Comedy", "1 fields"),
        ("csv", "ratings.csv", 12, "1,2,3.5,874724710.5", "timestamp = '874724710.5'"),
        ("csv", "ratings.csv", 12, "1,,3.5,874724710", "movieId = ''"),
        ("csv", "movies.csv", 3, '2,"Open quote (1990),Drama', "fields"),
    ],
)
def test_a_row_that_cannot_be_parsed_is_named_by_file_and_line(
    small: Dataset, tmp_path: Path, layout: str, file: str, line: int, text: str, says: str
) -> None:
    folder = WRITERS[layout](small, tmp_path)
    replace_line(folder / file, line, text, "utf-8" if layout == "csv" else "latin-1")
    with pytest.raises(DataError) as error:
        read_movielens(folder, positive_above=3.0)
    assert f"{file}:{line}: " in error.value.message
    assert says in error.value.message


def test_every_kind_of_problem_is_counted_and_its_first_row_named(small: Dataset, tmp_path: Path) -> None:
    folder = WRITERS["100k"](small, tmp_path)
    for line in (10, 20, 30):
        replace_line(folder / "u.data", line, "1\t2\tx\t874724710")
    for line in (15, 25):
        replace_line(folder / "u.data", line, "1\t2")
    with pytest.raises(DataError) as error:
        read_movielens(zipped(folder, tmp_path / "set.zip", "ml-100k"), positive_above=3.0)
    assert "'rating' cannot be parsed: 3 row(s) refused, first" in error.value.message
    assert "set.zip:ml-100k/u.data:10: rating = 'x'" in error.value.message
    assert "not 4 fields: 2 row(s) refused, first" in error.value.message
    assert "u.data:15: 2 fields" in error.value.message


def test_impossible_values_and_repetitions_are_dropped_counted_and_named(small: Dataset, tmp_path: Path) -> None:
    folder = WRITERS["csv"](small, tmp_path)
    lines = (folder / "ratings.csv").read_text().splitlines()
    lines[5:5] = ["1,2,9.0,874724710", "", "1,2,3.7,874724710", "1,2,nan,874724710", "1,2,3.0,0", lines[1]]
    (folder / "ratings.csv").write_text("\n".join(lines))
    read = read_movielens(folder, positive_above=3.0)
    assert [(one.problem, one.rows, one.action) for one in read.findings] == [
        ("rating not on the scale 0.5 to 5", 3, "dropped"),
        ("timestamp not between 1970 and 2100", 1, "dropped"),
        ("exact repetition of an earlier row", 1, "dropped"),
    ]
    assert [one.first.split(": ")[0].rsplit(":", 1)[1] for one in read.findings] == ["6", "10", "11"]
    assert read.rows_read - read.interactions.num_rows == 5
    kept = read.interactions.drop_columns(["position"])
    assert kept.equals(small.interactions.select(kept.column_names))
    assert read.interactions["position"].to_pylist() == [*range(4), *range(9, 905)]  # gaps show what was dropped


def test_an_item_that_only_ratings_know_keeps_its_events_and_gets_a_bare_row(small: Dataset, tmp_path: Path) -> None:
    folder = WRITERS["1m"](small, tmp_path)
    replace_line(folder / "ratings.dat", 3, "1::9999::4::874724710")
    read = read_movielens(folder, positive_above=3.0)
    assert read.items.to_pylist()[-1] == {"item_id": 9999, "title": "", "genres": [], "year": 0}
    assert [(one.problem, one.rows, one.action) for one in read.findings] == [
        ("item_id not in its own file", 1, "kept")
    ]


def test_the_year_comes_from_the_release_date_when_the_title_has_none(small: Dataset, tmp_path: Path) -> None:
    folder = WRITERS["100k"](small, tmp_path)
    replace_line(folder / "u.item", 1, "1|No year|24-Mar-1987||url|" + "|".join("0" * 19))
    assert read_movielens(folder, positive_above=3.0).items["year"][0].as_py() == 1987


@pytest.mark.parametrize("missing", ["u.item", "u.user"])
def test_a_missing_file_is_said_with_what_is_there(small: Dataset, tmp_path: Path, missing: str) -> None:
    folder = WRITERS["100k"](small, tmp_path)
    (folder / missing).unlink()
    with pytest.raises(DataError, match=f"{missing} is missing .has .*u.data"):
        read_movielens(folder, positive_above=3.0)


def test_a_csv_without_a_column_is_refused_before_the_rows(small: Dataset, tmp_path: Path) -> None:
    folder = WRITERS["csv"](small, tmp_path)
    replace_line(folder / "ratings.csv", 1, "userId,movieId,stars,timestamp", "utf-8")
    with pytest.raises(DataError, match=r"ratings.csv:1: column 'rating' is missing \(has userId, movieId, stars"):
        read_movielens(folder, positive_above=3.0)


def test_bytes_that_are_not_the_encoding_are_named(small: Dataset, tmp_path: Path) -> None:
    folder = WRITERS["csv"](small, tmp_path)
    lines = (folder / "movies.csv").read_bytes().splitlines()
    lines[4] = b"4,Am\xe9lie (2001),Comedy"
    (folder / "movies.csv").write_bytes(b"\n".join(lines))
    with pytest.raises(DataError, match=r"movies.csv:5: title"):
        read_movielens(folder, positive_above=3.0)


def test_what_is_no_movielens_data_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataUnavailable, match="no such file or folder; point DATA="):
        read_movielens(tmp_path / "nowhere", positive_above=3.0)
    with pytest.raises(DataError, match="holds no MovieLens data; expected one of u.data, ratings.dat, ratings.csv"):
        read_movielens(tmp_path, positive_above=3.0)
    (tmp_path / "half.zip").write_bytes(b"PK\x03\x04 and then the disk was full")
    with pytest.raises(DataError, match="half.zip: not a readable zip archive"):
        read_movielens(tmp_path / "half.zip", positive_above=3.0)


def test_a_damaged_member_of_an_archive_is_noticed(small: Dataset, tmp_path: Path) -> None:
    archive = zipped(WRITERS["csv"](small, tmp_path / "set"), tmp_path / "set.zip")
    content = bytearray(archive.read_bytes())
    content[len(content) // 2] ^= 0xFF
    archive.write_bytes(content)
    with pytest.raises(DataError, match="set.zip"):
        read_movielens(archive, positive_above=3.0)


def test_the_fingerprint_follows_content_and_not_dates(small: Dataset, tmp_path: Path) -> None:
    folder = WRITERS["1m"](small, tmp_path)
    before = movielens_fingerprint(folder)
    (folder / "ratings.dat").touch()
    assert movielens_fingerprint(folder) == before
    replace_line(folder / "ratings.dat", 1, "1::2::5::874724711")
    assert movielens_fingerprint(folder) != before


def test_movielens_100k_is_whole_and_in_the_order_of_its_file(ml100k: Path) -> None:
    read = read_movielens(ml100k, positive_above=3.0)
    raw = np.loadtxt(ml100k / "u.data", dtype=np.int64)
    for place, column in enumerate(("user_id", "item_id", "rating", "timestamp")):
        np.testing.assert_array_equal(read.interactions[column].to_numpy(), raw[:, place])
    assert (read.users.num_rows, read.items.num_rows, read.interactions.num_rows) == (943, 1682, 100_000)
    assert read.interactions["position"].to_pylist() == list(range(100_000))
    assert read.findings == ()
    first = read.items.slice(0, 1).to_pylist()[0]
    assert first == {
        "item_id": 1,
        "title": "Toy Story (1995)",
        "genres": ["Animation", "Children's", "Comedy"],
        "year": 1995,
    }
    assert pc.sum(pc.equal(read.items["year"], 0)).as_py() == 1  # "unknown"
