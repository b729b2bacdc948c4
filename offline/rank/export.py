"""Exports a trained click ranker as one static ONNX graph: raw features in, probabilities out, the encoding inside.

    python offline/rank/export.py runs/criteo
    python offline/rank/export.py runs/criteo --input-name i1=price --input-prefix ad_ --output-names ctr
    python offline/rank/export.py runs/criteo --pack        also packs a release of kind "scorer"; publish.py makes it live

The graph is compared with torch on rows with unseen, missing and extreme values, and nothing is exported that differs. Inputs are
[N] of any N, int64, float32 or string, called as the features are unless told otherwise. Outputs are like, like_logit, score and
score_logit (a click ranker has one head, which score repeats); --output-names renames them in this order and leaves out the rest.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort

from data_exchange_center.errors import SettingsError
from data_exchange_center.feature_spec import FeatureSpec
from data_exchange_center.graph_nodes import OPSET
from data_exchange_center.settings import Settings
from data_exchange_center.step import parser, run_step
from data_exchange_center.workspace import atomic_path, write_json
from offline.rank.click_run import open_run
from offline.rank.feature_encoding import FittedEncoder
from offline.rank.graph_export import ExportError, export_graph, renamed
from offline.rank.odd_rows import odd_rows
from offline.rank.torch_scorer import TorchScorer
from offline.release.s2_pack_scorer import pack_scorer

TOLERANCE = 1e-5  # of any output but logits
ROWS, CHUNK = 10_000, 1_000  # of the comparison, and of one call
ORDER = ("like", "like_logit", "score", "score_logit")  # in which --output-names names them
MODEL, EXPORTED, EXPORT = "model.onnx", "export.json", "export"


@dataclass(frozen=True)
class Names:
    """What the graph's ends are called.

    Attributes:
        inputs: feature -> input. outputs: score, like, ... -> output; what is not named is left out.
    """

    inputs: Mapping[str, str]
    outputs: Mapping[str, str]


def names_of(spec: FeatureSpec, given: Sequence[str] = (), prefix: str = "", outputs: Sequence[str] = ()) -> Names:
    """Names as the command line gives them.

    Args:
        given: feature=name each; the prefix stands before the features that are not given.
        outputs: names in `ORDER`.

    Raises:
        SettingsError: not of the form feature=name, no such feature, or too many outputs.
    """
    chosen = dict(one.split("=", 1) for one in given if "=" in one)
    features = [feature.name for feature in spec.inputs]
    for one in given:
        if "=" not in one or one.split("=", 1)[0] not in features:
            raise SettingsError(
                f"--input-name {one}: write feature=name; features are {', '.join(features)}", field="input-name"
            )
    if len(outputs) > len(ORDER):
        raise SettingsError(f"--output-names: there are {len(ORDER)} outputs, {', '.join(ORDER)}", field="output-names")
    named = dict(zip(ORDER, outputs or ORDER, strict=False))
    return Names({name: chosen.get(name, prefix + name) for name in features}, named)


def export_run(
    folder: Path, given: Sequence[str] = (), prefix: str = "", outputs: Sequence[str] = ()
) -> dict[str, Any]:
    """Writes `<run>/export/`: the graph, what torch needs to check it, vocabularies and, last, export.json.

    Args:
        folder: of the run.
        given, prefix, outputs: see `names_of`.

    Returns:
        path, bytes, nodes, opset, inputs and outputs by name, parity.

    Raises:
        DataError: no such run. ExportError: the graph differs from torch; nothing is marked as exported.
    """
    run = open_run(folder)
    encoder = run.parts().encoder
    names = names_of(encoder.spec, given, prefix, outputs)
    target = folder / EXPORT
    (target / EXPORTED).unlink(missing_ok=True)
    run.ranker.save(target)
    encoder.save(target)
    model = renamed(export_graph(run.ranker, encoder), names.inputs, names.outputs)
    with atomic_path(target / MODEL) as temporary:
        onnx.save(model, temporary)
    parity = parity_with_torch(target, encoder, names)
    if not parity["max_abs_delta"] <= TOLERANCE:
        raise ExportError(f"{target / MODEL}: differs from torch: {parity}")
    result = {
        "path": str(target / MODEL),
        "bytes": (target / MODEL).stat().st_size,
        "nodes": len(model.graph.node),
        "opset": OPSET,
        "model": run.config.model.name,
        "inputs": dict(names.inputs),
        "outputs": dict(names.outputs),
        "parity": parity,
    }
    write_json(target / EXPORTED, result)
    return result


def parity_with_torch(folder: Path, encoder: FittedEncoder, names: Names, rows: int = ROWS) -> dict[str, Any]:
    """Scores odd rows by the graph and by torch.

    Args:
        folder: with the graph, the network and the encoder.

    Returns:
        rows; max_abs_delta, of probabilities; max_logit_delta; each None when the graph gives none; worst: output, row, delta.
    """
    raw = odd_rows(encoder, rows)
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(folder / MODEL, options, providers=["CPUExecutionProvider"])
    taken = {given.name for given in session.get_inputs()}
    scorer = TorchScorer(folder)
    found: dict[str, tuple[float, int]] = dict.fromkeys(names.outputs, (-1.0, 0))
    for start in range(0, rows, CHUNK):
        part = {name: values[start : start + CHUNK] if len(values) == rows else values for name, values in raw.items()}
        given = {name: part[feature] for feature, name in names.inputs.items() if name in taken}
        made = session.run(list(names.outputs.values()), given)
        expected = scorer(part)
        for name, values in zip(names.outputs, made, strict=True):
            delta = np.abs(values.astype(np.float64) - expected[name])
            delta[~np.isfinite(values)] = np.inf
            found[name] = max(found[name], (float(delta.max()), start + int(delta.argmax())))
    worst = max(found, key=lambda name: found[name][0])
    logits = [delta for name, (delta, _) in found.items() if name.endswith("_logit")]
    return {
        "rows": rows,
        "max_abs_delta": max(
            (delta for name, (delta, _) in found.items() if not name.endswith("_logit")), default=None
        ),
        "max_logit_delta": max(logits, default=None),
        "worst": {"output": worst, "row": found[worst][1], "delta": found[worst][0]},
    }


def _step(settings: Settings, arguments: argparse.Namespace) -> Mapping[str, Any]:
    folder = Path(arguments.run).expanduser()
    exported = export_run(folder, arguments.input_name, arguments.input_prefix, arguments.output_names)
    if not arguments.pack:
        return exported
    comparison = Path(arguments.comparison) if arguments.comparison else None
    return {"graph": exported, **pack_scorer(settings, folder, comparison)}


def main(argv: list[str] | None = None) -> None:
    """The step as a program."""
    options = parser(__doc__ or "", common=["dataset", "store"])
    options.add_argument("run", help="folder of a run of offline/rank/train.py")
    options.add_argument(
        "--input-name", nargs="+", action="extend", default=[], metavar="FEATURE=NAME", help="what an input is called"
    )
    options.add_argument("--input-prefix", default="", help="stands before the names of all other inputs")
    options.add_argument("--output-names", nargs="+", default=[], metavar="NAME", help="of like, like_logit, …")
    options.add_argument("--pack", action="store_true", help="pack a scorer release too")
    options.add_argument("--comparison", help="JSON of offline/rank/compare.py, shown in the release's report")
    run_step("rank/export", options, _step, argv)


if __name__ == "__main__":
    main()
