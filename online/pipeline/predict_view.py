"""A scorer release as a process predicts single rows with it: features, graph inputs, and the encoder of its texts."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

import numpy as np

from data_exchange_center.errors import ReleaseError
from data_exchange_center.feature_spec import FeatureSpec
from data_exchange_center.release import Release, find_release
from data_exchange_center.scored_rows import RowForm, row_form
from data_exchange_center.settings import Settings
from data_exchange_center.text_encoder import ABOUT, TEXT, TextEncoder
from data_exchange_center.workspace import sha256

REMEMBERED_TEXTS = 4096  # of one process; 2 KiB each


class TextVectors:
    """A text encoder and the vectors of the texts that came lately; safe to use from several threads."""

    def __init__(self, encoder: TextEncoder) -> None:
        self.encoder = encoder
        self._one = lru_cache(REMEMBERED_TEXTS)(self._encoded)

    def __call__(self, texts: Sequence[str]) -> np.ndarray:
        """float32 [N, dim], in the order of the texts."""
        return np.stack([self._one(text) for text in texts])

    def _encoded(self, text: str) -> np.ndarray:
        (vector,) = self.encoder.encode([text])
        vector.setflags(write=False)
        made: np.ndarray = vector
        return made


class TextEncoders:
    """The encoder that a process has open: releases that carry the same one share it, for it is large and seldom changes."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._open: TextVectors | None = None

    def of(self, folder: Path) -> TextVectors:
        """The encoder in a release's folder.

        Raises:
            DataError: a file of it is missing or altered.
        """
        with self._lock:
            if self._open is None or self._open.encoder.sha256 != sha256(folder / ABOUT):
                self._open = TextVectors(TextEncoder(folder))
            return self._open


@dataclass(frozen=True)
class PredictView:
    """One release, opened.

    Attributes:
        form: which feature is which input of the graph, and which output answers.
        vectors: of texts; None where no feature is made of text.
    """

    release: Release
    spec: FeatureSpec = field(repr=False)
    form: RowForm = field(repr=False)
    vectors: TextVectors | None = field(repr=False)


def load_predict_view(settings: Settings, release: str, encoders: TextEncoders) -> PredictView:
    """Opens and verifies a release of the settings' store.

    Raises:
        ReleaseError: a file is missing or altered, or the release is of another scene or kind; the message says which.
        DataError: its text encoder cannot be read.
    """
    opened = find_release(settings, release)
    if opened.scene != settings.serve.predict_scene:
        raise ReleaseError(
            f"release {release} is of scene {opened.scene!r}, predictions are {settings.serve.predict_scene!r}"
        )
    spec = opened.spec()
    texts = any(feature.text for feature in spec.inputs)
    return PredictView(
        opened, spec, row_form(opened), encoders.of(opened.file(f"{TEXT}/{ABOUT}").parent) if texts else None
    )
