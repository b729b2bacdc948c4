"""The two fits of a run, and what each of them may see.

    judged     learns from train rows only, is judged on test rows (protocol 1)
    released   learns from every row that the release may know; what is exported

Lists for `choose` come from a cut's recall with the rows of the next cut as answers, so that no recall score was made by a model
that had seen them.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from data_exchange_center.settings import Settings
from data_exchange_center.workspace import Workspace

FitName = Literal["judged", "released"]


@dataclass(frozen=True)
class Fit:
    """One fit.

    Attributes:
        learns: the cut whose rows `like` learns from.
        history: the cut whose rows features and histories come from: test rows are judged with what was known by then.
        lists: cuts whose recall gives lists for `choose`.
        splits: values of `split` of the rows in the encoded table.
    """

    name: FitName
    learns: str
    history: str
    lists: tuple[str, ...]
    splits: tuple[str, ...]

    def folder(self, settings: Settings) -> Path:
        """Where the fit's tables and networks lie."""
        return Workspace(settings).rank / self.name


def fits_of(settings: Settings) -> tuple[Fit, Fit]:
    """The judged and the released fit under the settings' holdout."""
    judged = Fit("judged", "train", "offline", ("early",), ("train", "test"))
    if settings.split.holdout == "none":
        return judged, Fit("released", "all", "all", ("train", "offline"), ("train", "test", "online"))
    return judged, Fit("released", "offline", "offline", ("early", "train"), ("train", "test"))
