"""Fixtures that several tests of the ranker share."""

from __future__ import annotations

import onnxruntime as ort
import pytest
import torch

from offline.models.ranker import Ranker
from offline.rank.feature_encoding import FittedEncoder
from offline.rank.graph_export import export_graph
from tests.unit.models.tiny_scene import tiny_encoder, tiny_ranker

Graphs = tuple[FittedEncoder, Ranker, ort.InferenceSession, ort.InferenceSession]


@pytest.fixture(scope="session")
def tiny_graphs(kept_operators: None) -> Graphs:
    """A network of two members, and its graphs with one input a feature and with packed ones.

    Two exports take a few seconds: the files of the tests that use them are a unit of tests/schedule.py.
    """
    encoder = tiny_encoder()
    torch.manual_seed(0)
    ranker = tiny_ranker(encoder, members=2)
    single, packed = (
        ort.InferenceSession(export_graph(ranker, encoder, packed=packed).SerializeToString())
        for packed in (False, True)
    )
    return encoder, ranker, single, packed
