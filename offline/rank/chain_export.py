"""Exports the released network of a chain: the graph, what torch needs to check it, and its parity with torch on real requests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pyarrow as pa
import pyarrow.compute as pc

from data_exchange_center import columns as c
from data_exchange_center.graph_nodes import OPSET
from data_exchange_center.input_blocks import pack_inputs
from data_exchange_center.settings import Settings
from data_exchange_center.workspace import Workspace, atomic_path, read_table, write_json
from offline.models.ranker import OUTPUTS, Ranker
from offline.rank.feature_encoding import FittedEncoder, raw_columns
from offline.rank.graph_export import ExportError, export_graph
from offline.rank.torch_scorer import TorchScorer
from offline.recall.candidates_for_ranking import recall_candidates
from offline.recall.cut_option import serving_cut

TOLERANCE = 1e-4  # of logits; what is measured is far smaller
PARITY_USERS = 50


def export_model(settings: Settings, ranker: Ranker, encoder: FittedEncoder) -> dict[str, Any]:
    """Writes `rank/export/`: model.onnx, network.safetensors, network.json, encoder.onnx, vocab_map/ and, last, export.json.

    Returns:
        `parity` (see `measure_parity`), nodes and bytes of the graph.

    Raises:
        ExportError: a logit differs by more than TOLERANCE from torch's; nothing is marked as exported.
    """
    folder = Workspace(settings).rank / "export"
    (folder / "export.json").unlink(missing_ok=True)
    ranker.save(folder)
    encoder.save(folder)
    model = export_graph(ranker, encoder, packed=True)
    with atomic_path(folder / "model.onnx") as temporary:
        onnx.save(model, temporary)
    parity = measure_parity(settings, encoder, folder)
    if not parity["max_logit_delta"] <= TOLERANCE:
        raise ExportError(f"{folder / 'model.onnx'}: logits differ from torch's by {parity['max_logit_delta']:.2e}")
    result = {
        "parity": parity,
        "nodes": len(model.graph.node),
        "bytes": (folder / "model.onnx").stat().st_size,
        "ir_version": model.ir_version,
        "opset": OPSET,
        "packed_inputs": True,
        "inputs": [declared.name for declared in model.graph.input],
    }
    write_json(folder / "export.json", result)
    return result


def measure_parity(settings: Settings, encoder: FittedEncoder, folder: Path) -> dict[str, Any]:
    """Scores real users' candidates with torch and with onnxruntime.

    Returns:
        `max_abs_delta` over score and like, `max_logit_delta` over their logits, `rows`, `users`.
    """
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    graph = ort.InferenceSession(folder / "model.onnx", options, providers=["CPUExecutionProvider"])
    scorer = TorchScorer(folder)
    worst = dict.fromkeys(OUTPUTS, 0.0)
    rows = users = 0
    for inputs in real_requests(settings, encoder, PARITY_USERS):
        expected = scorer(inputs)
        made = dict(zip(OUTPUTS, graph.run(list(OUTPUTS), pack_inputs(encoder.blocks, inputs)), strict=True))
        for name in OUTPUTS:
            worst[name] = max(worst[name], float(np.abs(made[name] - expected[name]).max()))
        rows, users = rows + len(made["score"]), users + 1
    if not rows:
        raise ExportError("no user has candidates at the serving cut, so parity could not be measured")
    return {
        "max_abs_delta": max(worst["score"], worst["like"]),
        "max_logit_delta": max(worst["score_logit"], worst["like_logit"]),
        "rows": rows,
        "users": users,
    }


def real_requests(settings: Settings, encoder: FittedEncoder, users: int) -> Iterator[dict[str, np.ndarray]]:
    """Inputs of requests as serving would make them, from the serving cut's snapshot, for a seeded sample of users."""
    cut = serving_cut(settings)
    folder, spec = Workspace(settings).snapshot(cut), encoder.spec
    of_users, of_items = read_table(folder / "users.parquet"), read_table(folder / "items.parquet")
    chosen = np.random.default_rng(settings.seed).permutation(of_users.num_rows)[:users]
    asked = of_users.take(np.sort(chosen))
    candidates = recall_candidates(settings, cut, settings.serve.prerank_size, asked[c.USER_ID].combine_chunks())
    user_columns = raw_columns(encoder, asked, ("user",))
    user_columns |= {feature.name: asked[c.TIMESTAMP].to_numpy() for feature in spec.of("context")}
    item_columns = raw_columns(encoder, of_items, ("item",))
    user_place = pc.index_in(candidates[c.USER_ID], value_set=asked[c.USER_ID].combine_chunks()).to_numpy()
    item_place = pc.index_in(candidates[c.ITEM_ID], value_set=of_items[c.ITEM_ID].combine_chunks()).to_numpy()
    for place in range(asked.num_rows):
        rows = np.flatnonzero(user_place == place)
        if len(rows):
            yield {
                **{name: values[place : place + 1] for name, values in user_columns.items()},
                **{name: values[item_place[rows]] for name, values in item_columns.items()},
                **{f.name: candidates[f.name].take(pa.array(rows)).to_numpy() for f in spec.of("candidate")},
            }
