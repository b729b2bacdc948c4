"""What a gate looked at and what it found, as a report shows it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        name: of it. passed: whether it speaks for promotion.
        value: measured; None when it could not be. low, high: its interval, where it has one.
        limit: what decided. rows: it was measured on. note: in words.
    """

    name: str
    passed: bool
    value: float | None
    low: float | None = None
    high: float | None = None
    limit: float | None = None
    rows: int = 0
    note: str = ""


@dataclass(frozen=True)
class Decision:
    """Promote or hold, and all that was looked at."""

    promote: bool
    findings: tuple[Finding, ...]

    @property
    def reasons(self) -> list[str]:
        """Why it is held, in words; empty when it is not."""
        return [f"{one.name}: {one.note}" if one.note else one.name for one in self.findings if not one.passed]

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {"promote": self.promote, "reasons": self.reasons, "findings": [asdict(one) for one in self.findings]}


def decided(findings: Sequence[Finding]) -> Decision:
    """Promotes when every finding speaks for it."""
    return Decision(all(one.passed for one in findings), tuple(findings))
