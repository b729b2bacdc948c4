"""What a table may grow to."""

from __future__ import annotations

import resource

import pytest

from offline.models.reserved import rows_that_fit


def test_a_limit_on_the_process_bounds_what_is_reserved(monkeypatch: pytest.MonkeyPatch) -> None:
    free, limited = (resource.RLIM_INFINITY, resource.RLIM_INFINITY), (8000, resource.RLIM_INFINITY)
    monkeypatch.setattr(resource, "getrlimit", lambda kind: limited if kind == resource.RLIMIT_DATA else free)
    assert rows_that_fit(100) == 10
    monkeypatch.setattr(resource, "getrlimit", lambda kind: free)
    assert rows_that_fit(1 << 20) > 10
