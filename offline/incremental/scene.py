"""What the daily job asks of a scene; everything else is the same for all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pyarrow as pa

from data_exchange_center.vocabulary import Vocabulary

Vocabularies = Mapping[str, Vocabulary]


class Scene(Protocol):
    """How one scene's model is trained, asked and released. A run is a folder that holds all about a training.

    Attributes:
        name: of the scene.
        segments: columns of ready rows whose frequent values are judged alone.
        fingerprint: changes when the same rows would be learned in another way (settings, features).
    """

    name: str
    segments: Sequence[str]

    @property
    def fingerprint(self) -> str: ...

    def check(self, rows: pa.Table, date: str) -> None:
        """Raises DataError for raw rows of a day (of a history: "") that cannot be learned from."""
        ...

    def grown(self, rows: pa.Table, known: Vocabularies) -> dict[str, Vocabulary]:
        """The growing vocabularies with the tokens of raw rows added; ids that are known do not change."""
        ...

    def ready(self, rows: pa.Table, vocabularies: Vocabularies) -> pa.Table:
        """Raw rows as the model takes them; label, timestamp and event_id stay."""
        ...

    def first(self, train: Path, validation: Path, vocabularies: Path, run: Path) -> None:
        """The first training, on ready rows; goes on with one that was killed, does nothing when it has ended."""
        ...

    def update(
        self, start: Path, train: Sequence[Path], vocabularies: Path, run: Path, rehearsed: Sequence[Path] = ()
    ) -> None:
        """Goes on from another run, with its optimizers' state and at a low learning rate; killed and ended as in `first`.

        Args:
            train: ready rows of days that are new. rehearsed: of days that `start` has learned, for scenes that go over them again.
        """
        ...

    def probabilities(self, run: Path, rows: Sequence[Path]) -> np.ndarray:
        """What a run says of files of ready rows, float64 [rows], in their order."""
        ...

    def vocabularies_of(self, run: Path) -> dict[str, Vocabulary]:
        """The growing vocabularies that a run has learned with."""
        ...

    def release(self, run: Path, note: Mapping[str, Any]) -> str:
        """Packs a run into a release whose manifest holds the note under `incremental`; returns its id."""
        ...
