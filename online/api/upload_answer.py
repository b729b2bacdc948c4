"""The answer to an upload, as JSON or CSV, written piece by piece: millions of rows never become one string."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

ROWS = 16_384  # of a piece


def json_pieces(head: dict[str, Any], scores: np.ndarray, labels: np.ndarray | None) -> Iterator[bytes]:
    """`{"code": 200, "dtype": "float32", ..., "data": [[p], ...], "labels": [...]}`; labels only when they are given.

    Args:
        head: entries before the data, JSON values.
    """
    opening = json.dumps(head, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    yield opening[:-1].encode() + b',"data":['
    for start in range(0, len(scores), ROWS):
        between = "" if start == 0 else ","
        yield f"{between}[{'],['.join(texts(scores[start : start + ROWS]))}]".encode()
    yield b"]"
    if labels is not None:
        yield b',"labels":['
        for start in range(0, len(labels), ROWS):
            between = "" if start == 0 else ","
            yield f"{between}{','.join(texts(labels[start : start + ROWS].astype(np.int8)))}".encode()
        yield b"]"
    yield b"}"


def csv_pieces(scores: np.ndarray, labels: np.ndarray | None) -> Iterator[bytes]:
    """A header and a line per row: `p`, or `p,label` when labels are given."""
    yield b"p\n" if labels is None else b"p,label\n"
    for start in range(0, len(scores), ROWS):
        lines = texts(scores[start : start + ROWS])
        if labels is not None:
            told = texts(labels[start : start + ROWS].astype(np.int8))
            lines = [f"{score},{label}" for score, label in zip(lines, told, strict=True)]
        yield ("\n".join(lines) + "\n").encode()


def texts(values: np.ndarray) -> list[str]:
    """Each number in the fewest digits that give it back."""
    made: list[str] = pc.cast(pa.array(values), pa.string()).to_pylist()
    return made
