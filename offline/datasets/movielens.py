"""MovieLens in all its layouts: 100K (`u.data`), 1M (`ratings.dat`, `::`), latest, 20M, 25M and 32M (`ratings.csv`).

The layout is told by the files that are there, not by the dataset's name, and each set's own ratings scale applies.
Users of 100K and 1M carry gender, age, occupation and zip_code; the CSV sets have no user fields. (In 1M, age is the lower end
of an age group and occupation comes as a number, which gets its name from the publisher's README.)
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from data_exchange_center import columns as c
from data_exchange_center.errors import DataError
from data_exchange_center.tables import STRINGS
from offline.datasets.canonical import Dataset, Scale, assemble, term_lists, years
from offline.datasets.delimited import Layout, line_of_row, read_delimited
from offline.datasets.raw_files import RawFiles

WHOLE_STARS, HALF_STARS = Scale(1, 5, 1), Scale(0.5, 5, 0.5)
NO_GENRES = "(no genres listed)"
FILES = {
    "100k": ("u.data", "u.item", "u.user"),
    "1m": ("ratings.dat", "movies.dat", "users.dat"),
    "csv": ("ratings.csv", "movies.csv"),
}
GENRES_100K = (
    "unknown", "Action", "Adventure", "Animation", "Children's", "Comedy", "Crime", "Documentary", "Drama", "Fantasy",
    "Film-Noir", "Horror", "Musical", "Mystery", "Romance", "Sci-Fi", "Thriller", "War", "Western",
)  # fmt: skip
OCCUPATIONS_1M = (
    "other", "academic/educator", "artist", "clerical/admin", "college/grad student", "customer service",
    "doctor/health care", "executive/managerial", "farmer", "homemaker", "K-12 student", "lawyer", "programmer", "retired",
    "sales/marketing", "scientist", "self-employed", "technician/engineer", "tradesman/craftsman", "unemployed", "writer",
)  # fmt: skip

_EVENTS = {c.USER_ID: pa.int64(), c.ITEM_ID: pa.int64(), c.RATING: pa.float32(), c.TIMESTAMP: pa.int64()}
_RATINGS = {
    "100k": Layout(_EVENTS, separator="\t", names=tuple(_EVENTS), quoted=False, encoding="latin-1"),
    "1m": Layout(_EVENTS, separator="::", names=tuple(_EVENTS), quoted=False, encoding="latin-1"),
    "csv": Layout({"userId": pa.int64(), "movieId": pa.int64(), "rating": pa.float32(), "timestamp": pa.int64()}),
}
_ITEMS_100K = Layout(
    {
        c.ITEM_ID: pa.int64(),
        c.TITLE: pa.string(),
        "release_date": pa.string(),
        **{f"genre_{place}": pa.int64() for place in range(len(GENRES_100K))},
    },
    separator="|",
    names=(
        c.ITEM_ID, c.TITLE, "release_date", "video_release_date", "imdb_url",
        *(f"genre_{place}" for place in range(len(GENRES_100K))),
    ),
    quoted=False,
    encoding="latin-1",
)  # fmt: skip
_USERS_100K = Layout(
    {
        c.USER_ID: pa.int64(),
        "age": pa.int64(),
        "gender": pa.string(),
        "occupation": pa.string(),
        "zip_code": pa.string(),
    },
    separator="|",
    names=(c.USER_ID, "age", "gender", "occupation", "zip_code"),
    quoted=False,
    encoding="latin-1",
)
_ITEMS_1M = Layout(
    {c.ITEM_ID: pa.int64(), c.TITLE: pa.string(), c.TERMS: pa.string()},
    separator="::",
    names=(c.ITEM_ID, c.TITLE, c.TERMS),
    quoted=False,
    encoding="latin-1",
)
_USERS_1M = Layout(
    {
        c.USER_ID: pa.int64(),
        "gender": pa.string(),
        "age": pa.int64(),
        "occupation": pa.int64(),
        "zip_code": pa.string(),
    },
    separator="::",
    names=(c.USER_ID, "gender", "age", "occupation", "zip_code"),
    quoted=False,
    encoding="latin-1",
)
_ITEMS_CSV = Layout({"movieId": pa.int64(), "title": pa.string(), "genres": pa.string()})


def layout_of(files: RawFiles) -> str:
    """Which of the publisher's layouts the files have: `100k`, `1m` or `csv`."""
    for layout, names in FILES.items():
        if names[0] in files:
            return layout
    markers = ", ".join(names[0] for names in FILES.values())
    raise DataError(f"{files.source}: holds no MovieLens data; expected one of {markers} there or one folder down")


def read_movielens(source: Path, positive_above: float) -> Dataset:
    """Reads a MovieLens set.

    Args:
        source: folder or zip archive in the publisher's layout.
        positive_above: a rating strictly above this is a positive.

    Returns:
        The validated dataset; users and items in the order of their files, interactions in the order of the ratings file.

    Raises:
        DataError: a missing file, or rows that cannot be parsed, named by file and line.
    """
    files = RawFiles(source)
    layout = layout_of(files)
    for name in FILES[layout]:
        files[name]  # a missing file is said before the long read
    ratings_file = files[FILES[layout][0]]
    ratings = read_delimited(ratings_file, _RATINGS[layout]).rename_columns(list(_EVENTS))
    label = pc.cast(pc.greater(pc.cast(ratings[c.RATING], pa.float64()), positive_above), pa.int8())
    return assemble(
        ratings.append_column(c.LABEL, label),
        _users(files, layout),
        _items(files, layout),
        labels="ratings",
        place=lambda row: f"{ratings_file}:{line_of_row(ratings_file, _RATINGS[layout], row)}",
        scale=HALF_STARS if layout == "csv" else WHOLE_STARS,
    )


def movielens_fingerprint(source: Path) -> str:
    """SHA-256 over the content of the files that `read_movielens` reads."""
    files = RawFiles(source)
    return files.fingerprint(FILES[layout_of(files)])


def _users(files: RawFiles, layout: str) -> pa.Table | None:
    if layout == "100k":
        table = read_delimited(files["u.user"], _USERS_100K)
    elif layout == "1m":
        table = read_delimited(files["users.dat"], _USERS_1M)
        known = pc.is_in(table["occupation"], value_set=pa.array(range(len(OCCUPATIONS_1M))))
        names = pa.array(OCCUPATIONS_1M).take(pc.if_else(known, table["occupation"], 0))
        table = table.set_column(3, "occupation", pc.if_else(known, names, pc.cast(table["occupation"], pa.string())))
    else:
        return None
    return table.select([c.USER_ID, "gender", "age", "occupation", "zip_code"])


def _items(files: RawFiles, layout: str) -> pa.Table:
    if layout == "100k":
        return _items_100k(files)
    if layout == "1m":
        table = read_delimited(files["movies.dat"], _ITEMS_1M)
    else:
        table = read_delimited(files["movies.csv"], _ITEMS_CSV).rename_columns([c.ITEM_ID, c.TITLE, c.TERMS])
    return pa.table(
        {
            c.ITEM_ID: table[c.ITEM_ID],
            c.TITLE: table[c.TITLE],
            c.TERMS: term_lists(table[c.TERMS], "|", NO_GENRES),
            c.YEAR: years(table[c.TITLE]),
        }
    )


def _items_100k(files: RawFiles) -> pa.Table:
    """`u.item`: one 0/1 column per genre; the year from the title, else from the release date (`01-Jan-1995`)."""
    table = read_delimited(files["u.item"], _ITEMS_100K)
    flags = np.stack([table[f"genre_{place}"].to_numpy() for place in range(len(GENRES_100K))], axis=1)
    # the first flag, "unknown", says that nobody told the genre: no term
    terms = [[GENRES_100K[place] for place in np.flatnonzero(row) if place] for row in flags]
    titled = years(table[c.TITLE])
    released = years(pc.binary_join_element_wise("(", pc.utf8_slice_codeunits(table["release_date"], -4), ")", ""))
    return pa.table(
        {
            c.ITEM_ID: table[c.ITEM_ID],
            c.TITLE: table[c.TITLE],
            c.TERMS: pa.array(terms, STRINGS),
            c.YEAR: pc.if_else(pc.greater(titled, 0), titled, released),
        }
    )
