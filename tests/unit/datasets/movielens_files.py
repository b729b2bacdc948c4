"""Writes a dataset in each of the publisher's layouts, so that reading can be tested without the publisher's files."""

from __future__ import annotations

import csv
import zipfile
from pathlib import Path

import pyarrow as pa

from offline.datasets.canonical import Dataset
from offline.datasets.movielens import GENRES_100K, OCCUPATIONS_1M


def write_100k(dataset: Dataset, folder: Path) -> Path:
    """`u.data`, `u.item`, `u.user`: tabs and pipes, latin-1, one flag per genre."""
    lines = [f"{e['user_id']}\t{e['item_id']}\t{e['rating']:g}\t{e['timestamp']}" for e in rows(dataset.interactions)]
    write(folder / "u.data", lines, "latin-1")
    items = []
    for item in rows(dataset.items):
        flags = "|".join(str(int(genre in item["genres"])) for genre in GENRES_100K)
        items.append(f"{item['item_id']}|{item['title']}|01-Jan-{item['year']}||http://example.org|{flags}")
    write(folder / "u.item", items, "latin-1")
    users = [f"{u['user_id']}|{u['age']}|{u['gender']}|{u['occupation']}|{u['zip_code']}" for u in rows(dataset.users)]
    write(folder / "u.user", users, "latin-1")
    return folder


def write_1m(dataset: Dataset, folder: Path) -> Path:
    """`ratings.dat`, `movies.dat`, `users.dat`: `::` between fields, latin-1, occupations as numbers."""
    lines = [f"{e['user_id']}::{e['item_id']}::{e['rating']:g}::{e['timestamp']}" for e in rows(dataset.interactions)]
    write(folder / "ratings.dat", lines, "latin-1")
    items = [f"{i['item_id']}::{i['title']}::{'|'.join(i['genres'])}" for i in rows(dataset.items)]
    write(folder / "movies.dat", items, "latin-1")
    users = [
        f"{u['user_id']}::{u['gender']}::{u['age']}::{OCCUPATIONS_1M.index(u['occupation'])}::{u['zip_code']}"
        for u in rows(dataset.users)
    ]
    write(folder / "users.dat", users, "latin-1")
    return folder


def write_csv(dataset: Dataset, folder: Path) -> Path:
    """`ratings.csv`, `movies.csv` with headers, UTF-8 and quotes where a title needs them; and the files nobody reads."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "ratings.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["userId", "movieId", "rating", "timestamp"])
        writer.writerows([e["user_id"], e["item_id"], e["rating"], e["timestamp"]] for e in rows(dataset.interactions))
    with (folder / "movies.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["movieId", "title", "genres"])
        writer.writerows(
            [i["item_id"], i["title"], "|".join(i["genres"]) or "(no genres listed)"] for i in rows(dataset.items)
        )
    (folder / "tags.csv").write_text("userId,movieId,tag,timestamp\n", encoding="utf-8")
    return folder


WRITERS = {"100k": write_100k, "1m": write_1m, "csv": write_csv}


def zipped(folder: Path, archive: Path, top: str = "") -> Path:
    """The folder's files as a zip archive, inside a folder `top` when given."""
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as file:
        for path in sorted(folder.iterdir()):
            file.write(path, f"{top}/{path.name}" if top else path.name)
    return archive


def write(path: Path, lines: list[str], encoding: str) -> None:
    """Lines to a file, its folder made when missing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{line}\n" for line in lines), encoding=encoding)


def rows(table: pa.Table) -> list[dict]:
    """The table's rows."""
    return table.to_pylist()


def replace_line(path: Path, line: int, text: str, encoding: str = "latin-1") -> None:
    """Puts `text` in the place of a line, counted from 1."""
    lines = path.read_text(encoding=encoding).splitlines()
    lines[line - 1] = text
    path.write_text("".join(f"{one}\n" for one in lines), encoding=encoding)
