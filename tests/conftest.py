"""Fixtures that several rooms share."""

from __future__ import annotations

import functools
import os
import resource
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.schedule import pytest_xdist_make_scheduler  # noqa: F401 - a hook

MOST_BYTES = (
    10 * 2**30
)  # of data that a worker may hold: a test that takes without bound fails, and not the whole machine


def pytest_configure() -> None:
    if "PYTEST_XDIST_WORKER" in os.environ:
        hard = resource.getrlimit(resource.RLIMIT_DATA)[1]
        most = MOST_BYTES if hard == resource.RLIM_INFINITY else min(MOST_BYTES, hard)
        resource.setrlimit(resource.RLIMIT_DATA, (most, hard))


@pytest.hookimpl(trylast=True)
def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Tells a failure when it happens: a run that is cut off comes to no summary."""
    if report.failed and "PYTEST_XDIST_WORKER" not in os.environ:
        print(f"\n{report.nodeid} ({report.when}, {report.duration:.1f} s)\n{report.longreprtext[-4000:]}", flush=True)


@pytest.fixture(scope="session")
def ml100k() -> Path:
    """The folder of MovieLens 100K; tests that need it are skipped where it is not to be had."""
    return _test_data("ml-100k", "u.data")


@pytest.fixture(scope="session")
def criteo() -> Path:
    """The folder of the sample of Criteo's clicks in 8 ORC files; tests that need it are skipped where it is not to be had."""
    return _test_data("criteo-orc", "part-7.orc")


@pytest.fixture(scope="session")
def kept_operators() -> Iterator[None]:
    """The exporter parses the sources of its operators anew for each export, which takes a quarter of its time: once is enough."""
    from torch.onnx._internal.exporter._registration import onnxscript_apis

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(onnxscript_apis, "get_torchlib_ops", functools.cache(onnxscript_apis.get_torchlib_ops))
        yield


def _test_data(name: str, file: str) -> Path:
    folder = os.environ.get("MARQUEE_TEST_DATA", "")
    if not folder:
        pytest.skip(f"MARQUEE_TEST_DATA is not set: point it to a folder that contains {name}/")
    path = Path(folder).expanduser() / name
    if not (path / file).exists():
        pytest.skip(f"MARQUEE_TEST_DATA: {path} has no {file}")
    return path
