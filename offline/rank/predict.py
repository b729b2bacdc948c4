"""Scores files of rows with a trained run: one probability a row, in the order of the rows.

    python offline/rank/predict.py --run runs/criteo --input day_23.gz --output day_23.parquet
    python offline/rank/predict.py --run runs/criteo --input parts/ --output scores.csv --epoch 2

Reads every format that training reads, with or without labels, in constant memory. The output (Parquet, or CSV by its name) has the
one column `probability`; it appears under its name when it is whole. A malformed row is an error that names file and line, because
leaving one out would shift every row after it.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
import torch
from tqdm import tqdm

from data_exchange_center.errors import SettingsError
from data_exchange_center.settings import Settings
from data_exchange_center.step import parser, run_step
from data_exchange_center.workspace import atomic_path
from offline.rank.click_run import open_run
from offline.rank.click_scores import PROBABILITY, logits_of
from offline.rank.feature_encoding import FittedEncoder
from offline.rank.train import with_changes
from offline.training.ctr_data import EncodedRows
from offline.training.trainer import device_of

SCHEMA = pa.schema([pa.field(PROBABILITY, pa.float32())])


def predict_files(
    folder: Path,
    inputs: Sequence[Path],
    output: Path,
    *,
    epoch: int | None = None,
    format: str = "",
    overrides: Sequence[str] = (),
) -> dict[str, Any]:
    """Writes the probability of every row.

    Args:
        folder: of a run. inputs: files or folders. output: .parquet or .csv.
        epoch: the network after that epoch; the chosen one when None.
        format: of the inputs; the run's when empty. overrides: of the run's settings.

    Returns:
        Rows, their mean probability, and the output.

    Raises:
        DataError: no such run or file, or a malformed row. SettingsError: the output is neither Parquet nor CSV.
    """
    if output.suffix not in (".parquet", ".csv"):
        raise SettingsError(f"{output}: write to a .parquet or .csv file", field="output")
    run = open_run(folder, epoch=epoch, overrides=[*overrides, "data.on_error=raise"])
    torch.set_num_threads(run.config.training.threads)
    device = device_of(run.config.training.device)
    source = run.rows.read(inputs, run.config.inference.batch_size, format=format)
    encoded = EncodedRows(source, FittedEncoder.load(run.encoder, run.rows.spec))
    rows, total = 0, 0.0
    with tqdm(desc="predict", unit=" rows", unit_scale=True, leave=False) as bar, _writer(output) as write:
        for _, logits in logits_of(run.ranker.to(device), encoded, device):
            probabilities = (1 / (1 + np.exp(-logits.astype(np.float64)))).astype(np.float32)
            write(pa.record_batch([probabilities], SCHEMA))
            rows, total = rows + len(logits), total + float(probabilities.sum(dtype=np.float64))
            bar.update(len(logits))
    return {"output": str(output), "rows": rows, "mean_probability": total / rows if rows else None}


@contextmanager
def _writer(output: Path) -> Iterator[Any]:
    """Yields a function that appends a record batch; the file gets its name when the block ends well."""
    with atomic_path(output) as temporary:
        made = (
            pq.ParquetWriter(temporary, SCHEMA) if output.suffix == ".parquet" else pa_csv.CSVWriter(temporary, SCHEMA)
        )
        with made:
            yield made.write_batch if output.suffix == ".parquet" else made.write


def _step(settings: Settings, arguments: argparse.Namespace) -> Mapping[str, Any]:
    return predict_files(
        Path(arguments.run),
        [Path(path) for path in arguments.input],
        Path(arguments.output),
        epoch=arguments.epoch,
        format=arguments.format,
        overrides=arguments.set,
    )


def main(argv: list[str] | None = None) -> None:
    """The step as a program."""
    arguments = with_changes(parser(__doc__ or "", common=[]), "settings that differ from the run's")
    arguments.add_argument("--run", required=True, help="folder of a run of train.py")
    arguments.add_argument("--input", required=True, nargs="+", help="files or folders of part files")
    arguments.add_argument("--output", required=True, help=".parquet or .csv")
    arguments.add_argument("--epoch", type=int, help="the network after that epoch; the chosen one when not given")
    arguments.add_argument("--format", default="", help="of the input; the run's own when not given")
    run_step("rank/predict", arguments, _step, argv)


if __name__ == "__main__":
    main()
