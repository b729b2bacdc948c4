"""Short forms of the proofs under benchmarks/: skew is caught by name, and answers stay whole while servers fail."""

from __future__ import annotations

import pytest

from benchmarks.faults import faults
from benchmarks.skew import skew_proof
from tests.servers import Unavailable

pytestmark = pytest.mark.e2e


def test_every_kind_of_skew_is_caught_and_named() -> None:
    result = skew_proof(tiny=True, clean_runs=3, requests=15)
    assert result["injected"] == 8
    assert all(one["caught"] and one["named"] for one in result["skews"].values()), result["skews"]
    assert result["false_alarms"] == 0, result["alarms"]


@pytest.mark.parametrize(
    ("servers", "kinds"), [(["redis", "feast"], ["kill", "pause"]), (["triton"], ["kill"])], ids=["redis", "triton"]
)
def test_answers_stay_whole_while_a_server_fails(servers: list[str], kinds: list[str]) -> None:
    """Latency is judged by the benchmark on a quiet machine; here it need only stay bounded."""
    try:
        result = faults(servers=servers, kinds=kinds, hold=1.5, starts=False)
    except Unavailable as error:
        pytest.skip(str(error))
    assert sorted(result["faults"]) == sorted(servers)
    for results in result["faults"].values():
        for fault, one in results.items():
            assert (one["errors_5xx"], one["invalid"]) == (0, 0), (fault, one)
            assert one["degraded"] > 0, (fault, one)
            assert one["recovery_s"] is not None and one["recovery_s"] <= 5.0, (fault, one)
            assert one["p99_ms"] < 1000, (fault, one)
