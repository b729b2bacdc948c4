"""Scores candidates with torch from a release's (or an export's) files: the offline side of every parity check."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnxruntime as ort
import torch

from data_exchange_center.release import Release
from offline.models.ranker import OUTPUTS, Ranker
from offline.rank.feature_encoding import run_encoder_once

FILES = ("network.safetensors", "network.json", "encoder.onnx")


class TorchScorer:
    """Raw inputs -> score, like and their logits, as the exported graph gives them, but computed by torch.

    Example:
        scorer = load_torch_scorer(release)
        scorer({"user_id": np.array([1]), "item_id": np.array([50, 172]), ...})["score"]  # float32 [2]
    """

    def __init__(self, folder: Path) -> None:
        """Opens `network.safetensors`, `network.json` and `encoder.onnx` of a folder; DataError names what is missing."""
        self.ranker = Ranker.load(folder)
        options = ort.SessionOptions()
        options.intra_op_num_threads = 1
        self.encoder = ort.InferenceSession(folder / "encoder.onnx", options, providers=["CPUExecutionProvider"])

    def __call__(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Scores one user's candidates.

        Args:
            inputs: every input of the graph: user and context values [1, ...], item and candidate values [N, ...].

        Returns:
            score, like, score_logit, like_logit -> float32 [N].
        """
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            encoded = {name: torch.from_numpy(array) for name, array in run_encoder_once(self.encoder, inputs).items()}
            with torch.inference_mode():
                made = self.ranker(encoded)
        finally:
            torch.set_num_threads(threads)
        return {name: tensor.numpy() for name, tensor in zip(OUTPUTS, made, strict=True)}


def load_torch_scorer(release: Release) -> TorchScorer:
    """The scorer of a release."""
    return TorchScorer(release.file(f"model/{FILES[0]}").parent)
