"""What is known about the canonical tables of a dataset: `dataset.json` beside them, written last and removed first.

Later steps read it to learn what they may assume: which attributes exist, of which type the ids are, and what the labels
mean. With `labels == "positives_only"` there is nothing to tell liked from disliked, so protocol 1 is left out.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from data_exchange_center.errors import DataError
from data_exchange_center.workspace import Workspace, read_json, write_json

Labels = Literal["ratings", "events", "impressions", "outcome", "positives_only"]
SHOWN: tuple[Labels, ...] = ("impressions", "outcome")
"""Labels of a log whose every row is something shown: label 0 is an item that was left alone, and no event of its user."""
FILE = "dataset.json"


class Finding(BaseModel):
    """One kind of problem met in the raw data.

    Attributes:
        problem: what is wrong with the rows.
        rows: how many have it; 0 when something that is missing is the problem.
        first: the first of them: file, line and what stands there; or what there is instead.
        action: what was done with them.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    problem: str
    rows: int
    first: str
    action: Literal["refused", "dropped", "kept"]

    def __str__(self) -> str:
        if not self.rows:
            return f"{self.problem}: {self.first}"
        return f"{self.problem}: {self.rows} row(s) {self.action}, first {self.first}"


class DatasetInfo(BaseModel):
    """The content of `dataset.json`.

    Attributes:
        name: the dataset's name, as in paths.
        source: what was read: a folder, an archive, a YAML, or the generator.
        fingerprint: SHA-256 over the raw files' content and every setting that shapes the tables.
        labels: where labels come from; `positives_only` means that every row is a positive.
        users, items, interactions: rows of the three tables.
        positive_rate: share of interactions with label 1.
        first_timestamp, last_timestamp: of the interactions, unix seconds.
        rows_read: interactions in the raw files, before any was dropped.
        dropped: rows of them that are not in the table (impossible values, exact duplicates, superseded impressions).
        findings: what was wrong in the raw data, counted.
        user_id_type, item_id_type: as the log declares them.
        user_attributes, item_attributes: columns beside the id; `title`, `genres` and `year` are item attributes.
        has_user_attributes: there is at least one user attribute.
        has_terms: items have terms (`genres`), so the term channel has something to match on.
        truth: the generator's preference structure lies beside the tables, in `truth/`.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    source: str
    fingerprint: str
    labels: Labels
    users: int
    items: int
    interactions: int
    positive_rate: float
    first_timestamp: int
    last_timestamp: int
    rows_read: int
    dropped: int
    findings: tuple[Finding, ...]
    user_id_type: Literal["int64", "string"]
    item_id_type: Literal["int64", "string"]
    user_attributes: tuple[str, ...]
    item_attributes: tuple[str, ...]
    has_user_attributes: bool
    has_terms: bool
    truth: bool = False


def info_path(workspace: Workspace) -> Path:
    """Where `dataset.json` of the workspace's dataset lies."""
    return workspace.tables / FILE


def read_dataset_info(workspace: Workspace) -> DatasetInfo:
    """Reads `dataset.json`; a missing one, or one of another version of Marquee, is a DataError that names it."""
    path = info_path(workspace)
    try:
        return DatasetInfo.model_validate(read_json(path))
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        raise DataError(f"{path}: {place}: {first['msg']}; run offline/preprocess/s1_data_split.py again") from error


def write_dataset_info(workspace: Workspace, info: DatasetInfo) -> None:
    """Writes `dataset.json` atomically."""
    write_json(info_path(workspace), info.model_dump(mode="json"))
