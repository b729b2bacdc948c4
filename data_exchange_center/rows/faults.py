"""Malformed rows: an error that names file and line, or, when asked, a count of what was left out."""

from __future__ import annotations

from dataclasses import dataclass, field

from data_exchange_center.errors import DataError


class MalformedRow(DataError):
    """A row that cannot be read.

    Attributes:
        source: the file's name; empty where there is none.
        line: of a text, from 1; None in columnar files.
        row: of a columnar file, from 0; None in text.
        problem: what is wrong with it.
    """

    code = "malformed_row"

    def __init__(self, source: str, problem: str, *, line: int | None = None, row: int | None = None) -> None:
        where = f"line {line}" if row is None else f"row {row}"
        super().__init__(f"{source}: {where}: {problem}" if source else f"{where}: {problem}")
        self.source, self.problem, self.line, self.row = source, problem, line, row


@dataclass
class Faults:
    """What was skipped: how many rows, and the first few of them.

    Attributes:
        count: of skipped rows.
        first: the first `keep` of them.
        keep: how many to remember.
    """

    count: int = 0
    first: list[MalformedRow] = field(default_factory=list)
    keep: int = 5

    def add(self, fault: MalformedRow) -> None:
        """Counts one."""
        self.count += 1
        if len(self.first) < self.keep:
            self.first.append(fault)


def report(faults: Faults | None, fault: MalformedRow) -> None:
    """Counts the fault, or raises it where nobody counts."""
    if faults is None:
        raise fault
    faults.add(fault)
