"""Rows a second of POST /upload, and the memory that they need, beside the same as it is commonly written (plain_upload.py).

    python benchmarks/upload.py                       the sample, fetched; generated rows where it cannot be had
    python benchmarks/upload.py --data /data/criteo   a local copy

The live click release (made and published when there is none) scores 100,000 rows of Criteo's text over HTTP, one upload at a time;
the median of the rounds counts. Memory is what the server's processes hold at most beyond what they hold after a small upload.
Both servers have one worker, run on the same model, and answer with the same scores, which is checked.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from benchmarks import plain_upload
from benchmarks.common import machine
from benchmarks.serve import Address, servable, unused_port
from data_exchange_center.errors import MarqueeError, NotReady
from data_exchange_center.programs import running_program
from data_exchange_center.release import Release
from data_exchange_center.rows.schema import criteo_schema
from data_exchange_center.settings import ROOT, Settings
from data_exchange_center.step import parser, run_step
from offline.datasets.criteo import SPLITS, find_clicks
from offline.datasets.row_writers import row_writer
from offline.reading.reader import RowReader
from offline_to_online.demo_steps import wait_until_serving, with_available_data

SMALL = 500  # rows of the upload that warms a server up
LOOK_S = 0.01  # between two looks at the memory
BOUNDARY = b"marquee-benchmark"
START_S = 60.0


def benchmark(settings: Settings, rows: int, rounds: int) -> dict[str, Any]:
    """Measures ours and the peer, one after the other.

    Args:
        rows: of the file. rounds: uploads of it; the median counts.

    Raises:
        MarqueeError: an answer was not 200, or the two differ.
    """
    settings = with_available_data(settings)
    release = servable(settings)
    with tempfile.TemporaryDirectory(prefix="upload-") as folder:
        small, large = (as_text(settings, Path(folder) / f"{count}.tsv", count) for count in (SMALL, rows))
    with our_server(settings, release.id) as (address, process):
        ours, scores = measured(address, process, small, large, rows, rounds)
    with plain_server(release, settings.serve.host) as (address, process):
        peer, others = measured(address, process, small, large, rows, max(1, rounds // 2))
    differs = float(np.abs(scores - others).max())
    if not differs <= 1e-5:
        raise MarqueeError(f"the peer scores up to {differs} differently: it does other work")
    return {
        "name": "upload",
        "machine": machine(),
        "release": release.id,
        "rows": rows,
        "file_mib": round(len(large) / 2**20, 2),
        "ours": ours,
        "peer": peer,
        "ratio": {
            "rows_per_s": round(ours["rows_per_s"] / peer["rows_per_s"], 2),
            "rows_per_cpu_s": round(ours["rows_per_cpu_s"] / peer["rows_per_cpu_s"], 2),
            "memory": round(peer["growth_mib"] / max(ours["growth_mib"], 0.1), 2),
        },
        "max_abs_delta": differs,
    }


def as_text(settings: Settings, path: Path, count: int) -> bytes:
    """The body of an upload of `count` rows of the dataset, repeated when it has fewer, in Criteo's text."""
    clicks = find_clicks(settings)
    schema = criteo_schema()
    files = [file for split in reversed(SPLITS) for file in getattr(clicks, split)]
    with row_writer(path, schema, "tsv") as write:
        left = count
        for file in cycle(files):
            for batch in RowReader([file], schema, batch_size=10_000):
                write(batch.slice(0, left))
                left -= min(left, len(batch))
                if not left:
                    break
            if not left:
                break
    head = b'--%s\r\nContent-Disposition: form-data; name="file"; filename="rows.tsv"\r\n\r\n' % BOUNDARY
    return head + path.read_bytes() + b"\r\n--%s--\r\n" % BOUNDARY


def measured(
    address: Address, process: psutil.Process, small: bytes, large: bytes, rows: int, rounds: int
) -> tuple[dict[str, Any], np.ndarray]:
    """Median seconds and CPU seconds of an upload, and the growth of the server's memory; and the scores."""
    for _ in range(2):
        send(address, small)
    before = memory(process)
    spent, cpu = [], []
    with watched(process) as peak:
        for _ in range(rounds):
            started, used = time.perf_counter(), cpu_seconds(process)
            answer = send(address, large)
            spent.append(time.perf_counter() - started)
            cpu.append(cpu_seconds(process) - used)
    scores = np.array(json.loads(answer)["data"], np.float32)[:, 0]
    if len(scores) != rows:
        raise MarqueeError(f"{address[0]}:{address[1]}: {len(scores)} scores for {rows} rows")
    seconds = float(np.median(spent))
    return {
        "rows_per_s": round(rows / seconds),
        "rows_per_cpu_s": round(rows / float(np.median(cpu))),
        "seconds": round(seconds, 3),
        "growth_mib": round((max(peak) - before) / 2**20, 1),
        "before_mib": round(before / 2**20, 1),
        "answer_mib": round(len(answer) / 2**20, 2),
    }, scores


def send(address: Address, body: bytes) -> bytes:
    """One upload; the whole answer."""
    connection = http.client.HTTPConnection(*address, timeout=300)
    try:
        kind = {"Content-Type": f"multipart/form-data; boundary={BOUNDARY.decode()}"}
        connection.request("POST", "/upload?user_id=1", body, kind)
        response = connection.getresponse()
        content = response.read()
    finally:
        connection.close()
    if response.status != 200:
        raise MarqueeError(f"{address[0]}:{address[1]}/upload: {response.status}: {content[:300]!r}")
    return content


def family(process: psutil.Process) -> list[psutil.Process]:
    return [process, *process.children(recursive=True)]


def memory(process: psutil.Process) -> int:
    """Bytes that the server's processes have for themselves."""
    return sum(int(one.memory_full_info().uss) for one in family(process))


def cpu_seconds(process: psutil.Process) -> float:
    return sum(sum(one.cpu_times()[:2]) for one in family(process))


@contextmanager
def watched(process: psutil.Process) -> Iterator[list[int]]:
    """Looks at the memory until the block ends."""
    seen, ended = [memory(process)], threading.Event()

    def look() -> None:
        while not ended.wait(LOOK_S):
            seen.append(memory(process))

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield seen
    finally:
        ended.set()
        thread.join()


@contextmanager
def our_server(settings: Settings, release: str) -> Iterator[tuple[Address, psutil.Process]]:
    """Marquee's server with one worker."""
    host = settings.serve.host
    own = settings.with_values(**{"serve.port": unused_port(host), "serve.workers": 1})
    with running_program("online/main/s1_server.py", ["--quiet"], own) as process:
        wait_until_serving(f"http://{host}:{own.serve.port}", release)
        yield (host, own.serve.port), psutil.Process(process.pid)


@contextmanager
def plain_server(release: Release, host: str) -> Iterator[tuple[Address, psutil.Process]]:
    """The plain application under gunicorn's default worker, one of them."""
    port = unused_port(host)
    command = [sys.executable, "-m", "gunicorn", "--workers", "1", "--bind", f"{host}:{port}", "--timeout", "300"]
    command += ["--log-level", "warning", "--no-control-socket", "benchmarks.plain_upload:create_app()"]
    process = subprocess.Popen(command, cwd=ROOT, env=os.environ | {plain_upload.RELEASE: str(release.path)})
    try:
        wait_for_port((host, port), process)
        yield (host, port), psutil.Process(process.pid)
    finally:
        process.terminate()
        process.wait(30)


def wait_for_port(address: Address, process: subprocess.Popen[bytes]) -> None:
    """Returns when the server answers at all."""
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline and process.poll() is None:
        connection = http.client.HTTPConnection(*address, timeout=5)
        try:
            connection.request("GET", "/")
            connection.getresponse().read()
            return
        except OSError:
            time.sleep(0.1)
        finally:
            connection.close()
    raise NotReady(f"the plain upload does not answer at {address[0]}:{address[1]}")


def main(argv: list[str] | None = None) -> None:
    arguments = parser((__doc__ or "").strip())
    arguments.set_defaults(dataset="criteo")
    arguments.add_argument("--rows", type=int, default=100_000, help="of the file")
    arguments.add_argument("--rounds", type=int, default=5, help="uploads of it; the median counts")

    def step(settings: Settings, parsed: argparse.Namespace) -> dict[str, Any]:
        return benchmark(settings, parsed.rows, parsed.rounds)

    run_step("upload", arguments, step, argv)


if __name__ == "__main__":
    main()
