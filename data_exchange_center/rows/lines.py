"""Bytes to whole lines, for texts of any size in bounded memory.

What a text may look like: lines end in LF or CRLF, the last one with or without it; a UTF-8 byte order mark may stand before the
first; blank lines hold no row. A NUL byte, a CR that ends no line, or a line above `LONGEST` is malformed.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from data_exchange_center.rows.faults import Faults, MalformedRow, report

BOM = b"\xef\xbb\xbf"
BLOCK = 1 << 20  # bytes of text that are parsed at once
LONGEST = 1 << 20  # bytes of one line
LF, CR, NUL = 10, 13, 0


@dataclass(frozen=True)
class Lines:
    """Where the lines of a text stand; the blank ones are left out.

    Attributes:
        starts: [lines] place of the first byte of each.
        ends: [lines] place behind its last one, without LF or CRLF.
        numbers: [lines] number in the text, from 0, blank lines counted.
    """

    starts: np.ndarray
    ends: np.ndarray
    numbers: np.ndarray

    def __len__(self) -> int:
        return len(self.starts)


def lines_of(text: bytes) -> Lines:
    """The lines of a text that begins with one."""
    data = np.frombuffer(text, np.uint8)
    ends = np.flatnonzero(data == LF)
    if len(data) and data[-1] != LF:
        ends = np.append(ends, len(data))
    starts = np.concatenate(([0], ends[:-1] + 1)) if len(ends) else ends
    before = np.maximum(ends - 1, 0)
    ends = ends - ((ends > starts) & (data[before] == CR)) if len(ends) else ends
    kept = np.flatnonzero(ends > starts)
    return Lines(starts[kept], ends[kept], kept)


def counts_in(text: bytes, byte: int, lines: Lines) -> np.ndarray:
    """How often a byte stands in each line, [lines]."""
    places = np.flatnonzero(np.frombuffer(text, np.uint8) == byte)
    return np.searchsorted(places, lines.ends) - np.searchsorted(places, lines.starts)


def impure(text: bytes, lines: Lines) -> dict[int, str]:
    """Place of each line that holds what no line may hold -> what that is."""
    problems: dict[int, str] = {}
    for byte, name in ((NUL, "a NUL byte"), (CR, "a carriage return that ends no line")):
        for place in np.flatnonzero(counts_in(text, byte, lines)).tolist():
            problems.setdefault(place, f"holds {name}")
    return problems


def rejoined(text: bytes, lines: Lines, kept: np.ndarray) -> bytes:
    """The text of these lines alone, each with an LF."""
    return b"".join([text[start:end] + b"\n" for start, end in zip(lines.starts[kept], lines.ends[kept], strict=True)])


def normalized(text: bytes, *, first: bool) -> bytes:
    """The text without a byte order mark, if it is the `first` one of its file, and with LF for CRLF."""
    if first and text.startswith(BOM):
        text = text[len(BOM) :]
    return text.replace(b"\r\n", b"\n") if b"\r" in text else text


class LineBlocks:
    """Cuts a text that arrives in pieces into blocks of whole lines.

    Args:
        source: name of the text for messages.
        faults: counts lines that are too long; None: such a line is an error.
        block: bytes of a block, about.
    """

    def __init__(self, source: str = "", faults: Faults | None = None, block: int = BLOCK) -> None:
        self.source = source
        self._faults = faults
        self._block = block
        self._waiting: list[bytes] = []  # whole lines and the beginning of one
        self._size = 0
        self._line = 1  # the number of the first waiting line
        self._within_long = False

    def feed(self, piece: bytes) -> Iterator[tuple[int, bytes]]:
        """Takes the next bytes; yields (number of the first line, from 1; whole lines) for every block that is full."""
        for start in range(0, len(piece), self._block):
            part = piece[start : start + self._block]
            self._waiting.append(part)
            self._size += len(part)
            if self._size >= self._block:
                yield from self._cut()

    def finish(self) -> Iterator[tuple[int, bytes]]:
        """Yields what is left; the last line may lack its end."""
        text = b"".join(self._waiting)
        self._waiting, self._size = [], 0
        if self._within_long:
            end = text.find(b"\n") + 1
            text = text[end:] if end else b""
            self._line += 1
        if text:
            yield self._line, text

    def _cut(self) -> Iterator[tuple[int, bytes]]:
        text = b"".join(self._waiting)
        if self._within_long:
            end = text.find(b"\n") + 1
            self._within_long = not end
            text = text[end:] if end else b""
            self._line += bool(end)
        end = text.rfind(b"\n") + 1
        block, rest = text[:end], text[end:]
        if block:
            yield self._line, block
            self._line += block.count(b"\n")
        if len(rest) > LONGEST:
            report(self._faults, MalformedRow(self.source, f"longer than {LONGEST} bytes", line=self._line))
            self._within_long, rest = True, b""
        self._waiting, self._size = [rest] if rest else [], len(rest)
