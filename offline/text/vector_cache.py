"""Vectors of texts, kept on disk by content: each distinct text goes through the sentence model once, whatever rows it stands in.

    text_vectors/<encoder>/part-<digest>.parquet    text, vector

A part is written under its name when it is whole. What two processes encode at
once is written twice, which is harmless.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
from tqdm import tqdm

from data_exchange_center.errors import DataError
from data_exchange_center.text_encoder import TextEncoder
from data_exchange_center.workspace import read_table, write_table

AT_ONCE = 512  # texts of one part


class CachedVectors:
    """The vectors of one encoder.

    Args:
        encoder: what encodes.
        folder: that holds the vectors of all encoders.
    """

    def __init__(self, encoder: TextEncoder, folder: Path) -> None:
        self.encoder, self.folder = encoder, folder / encoder.sha256[:16]
        self._places: dict[str, int] = {}
        self._rows = np.zeros((0, encoder.dim), np.float32)
        self._read: set[str] = set()

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        """float32 [N, dim], in the order of the texts."""
        distinct = dict.fromkeys(texts)
        if any(text not in self._places for text in distinct):
            self._read_parts()
        new = [text for text in distinct if text not in self._places]
        with tqdm(total=len(new), desc="encode texts", unit=" texts", leave=False, disable=len(new) < AT_ONCE) as bar:
            for start in range(0, len(new), AT_ONCE):
                part = new[start : start + AT_ONCE]
                self._write_part(part)
                bar.update(len(part))
        found: np.ndarray = self._rows[[self._places[text] for text in texts]]
        return found

    def _write_part(self, texts: Sequence[str]) -> None:
        vectors = self.encoder.encode(texts)
        name = hashlib.sha256("\x00".join(texts).encode("utf-8", "surrogatepass")).hexdigest()[:24]
        flat = pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), self.encoder.dim)
        write_table(
            self.folder / f"part-{name}.parquet", pa.table({"text": pa.array(texts, pa.string()), "vector": flat})
        )
        self._read.add(f"part-{name}.parquet")
        self._add(texts, vectors)

    def _read_parts(self) -> None:
        for path in sorted(self.folder.glob("part-*.parquet")):
            if path.name in self._read:
                continue
            table = read_table(path)
            vectors = table["vector"].combine_chunks()
            flat = vectors.flatten().to_numpy()
            if len(flat) != len(table) * self.encoder.dim:
                raise DataError(f"{path}: not {self.encoder.dim} numbers a text; remove it")
            self._add(table["text"].to_pylist(), flat.reshape(len(table), self.encoder.dim))
            self._read.add(path.name)

    def _add(self, texts: Sequence[str], vectors: np.ndarray) -> None:
        fresh = [place for place, text in enumerate(texts) if text not in self._places]
        start = len(self._rows)
        self._places |= {texts[place]: start + n for n, place in enumerate(fresh)}
        self._rows = np.concatenate([self._rows, vectors[fresh]])
