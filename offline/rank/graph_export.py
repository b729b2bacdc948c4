"""A trained network and its encoder as one ONNX graph: raw features in, score and like out."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import onnx
import onnxruntime as ort
import torch
from onnx import compose
from onnx.utils import Extractor
from torch import Tensor, nn

from data_exchange_center.errors import MarqueeError, SettingsError
from data_exchange_center.graph_nodes import IR_VERSION, OPSET
from data_exchange_center.input_blocks import pack_inputs
from data_exchange_center.raw_columns import NUMPY, missing_value
from offline.models.ranker import OUTPUTS, Ranker
from offline.rank.feature_encoding import FittedEncoder, run_encoder_once

NETWORK = "network."  # prefix of the network's inputs before both graphs are merged


class ExportError(MarqueeError):
    """The exported graph does not compute what torch computes."""

    code = "export_failed"


class _Ordered(nn.Module):
    """The network with its inputs as positional arguments, which is what the exporter names and shapes."""

    def __init__(self, ranker: Ranker, names: Sequence[str]) -> None:
        super().__init__()
        self.ranker, self.names = ranker, names

    def forward(self, *tensors: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        return self.ranker(dict(zip(self.names, tensors, strict=True)))


def export_graph(ranker: Ranker, encoder: FittedEncoder, *, packed: bool = False) -> onnx.ModelProto:
    """Merges encoder and network: user and context inputs [1, ...], item and candidate inputs [items, ...], outputs [items].

    Args:
        packed: inputs are the blocks of data_exchange_center/input_blocks.py instead of one per feature.
    """
    front = encoder.block_model() if packed else encoder.model(users=1, items="items")
    session = ort.InferenceSession(front.SerializeToString(), providers=["CPUExecutionProvider"])
    rows = 3  # of the example; any number but 0 and 1, which the exporter would take for constants
    given = _example(encoder, rows)
    example = run_encoder_once(session, pack_inputs(encoder.blocks, given) if packed else given)
    tensors = tuple(torch.from_numpy(tensor) for tensor in example.values())
    items = torch.export.Dim("items", min=1, max=4096)
    shapes = tuple({0: items} if len(tensor) == rows else {} for tensor in tensors)
    with _quiet():
        program = torch.onnx.export(
            _Ordered(ranker, list(example)),
            tensors,
            dynamo=True,
            dynamic_shapes=(shapes,),
            input_names=[NETWORK + name for name in example],
            output_names=list(OUTPUTS),
            opset_version=OPSET,
            external_data=False,
            verbose=False,
        )
    assert program is not None  # noqa: S101  # dynamo=True always returns a program
    network = program.model_proto
    network.ir_version = IR_VERSION
    taken = {declared.name for declared in network.graph.input}
    pairs = [(name, NETWORK + name) for name in example if NETWORK + name in taken]
    merged = compose.merge_models(front, network, io_map=pairs, name="marquee", producer_name="marquee")
    versions = {opset.domain: opset for opset in merged.opset_import}  # merging lists a domain once for each graph
    del merged.opset_import[:]
    merged.opset_import.extend(versions.values())
    onnx.checker.check_model(merged, full_check=True)
    return merged


def _example(encoder: FittedEncoder, rows: int) -> dict[str, np.ndarray]:
    """Missing values for every input, one user and some items."""
    made = {}
    for feature in encoder.spec.inputs:
        kind = encoder.spec.dtype_of(feature, *encoder.id_types)
        lead = 1 if feature.entity in ("user", "context") else rows
        shape = (lead, feature.length) if feature.is_list else (lead,)
        made[feature.name] = np.full(shape, missing_value(feature, kind), NUMPY[kind])
    return made


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """The exporter prints its progress and warns of its own deprecated parts; stdout belongs to the step's result."""
    level = logging.getLogger("torch.onnx").level
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    try:
        with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.getLogger("torch.onnx").setLevel(level)


def renamed(model: onnx.ModelProto, inputs: Mapping[str, str], outputs: Mapping[str, str]) -> onnx.ModelProto:
    """The graph with other names at its ends.

    Args:
        inputs: name -> new name, for each that changes.
        outputs: name -> new name, for each that stays; what only the others need is cut off.

    Raises:
        SettingsError: a name that the graph does not have, or a new one that stands twice or means something else inside.
    """
    given = [value.name for value in model.graph.input]
    made = [value.name for value in model.graph.output]
    for name, known in ((name, known) for names, known in ((inputs, given), (outputs, made)) for name in names):
        if name not in known:
            raise SettingsError(f"the graph has no {name!r}; it has {', '.join(known)}", field=name)
    cut = Extractor(model).extract_model(given, list(outputs))
    new = {name: inputs.get(name, name) for name in given} | dict(outputs)
    inner = {name for node in cut.graph.node for name in (*node.input, *node.output)} - set(new)
    inner |= {tensor.name for tensor in cut.graph.initializer}
    for name in new.values():
        if list(new.values()).count(name) > 1 or name in inner or not name:
            raise SettingsError(f"{name!r} cannot name an input or output: it is taken", field=name)
    for node in cut.graph.node:
        node.input[:] = [new.get(name, name) for name in node.input]
        node.output[:] = [new.get(name, name) for name in node.output]
    for value in (*cut.graph.input, *cut.graph.output):
        value.name = new[value.name]
    onnx.checker.check_model(cut, full_check=True)
    return cut
