"""Requests made from the server's own OpenAPI document, valid and invalid ones: no 500, and answers as documented."""

from __future__ import annotations

from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis.core.result import Ok
from schemathesis.generation import GenerationMode

from tests.factories import make_rows
from tests.unit.online.conftest import Chain
from tests.unit.online.test_upload import tsv

TAKE_INPUT = [
    "POST /ml/rec",
    "GET /ml/rec",
    "POST /ml/score",
    "POST /ml/events",
    "POST /upload",
    "POST /repair/predict",
    "POST /admin/publish",
    "POST /admin/rollback",
    "POST /admin/reload",
    "POST /admin/items/block",
    "POST /admin/items/unblock",
]
TAKE_NONE = ["GET /healthz", "GET /readyz", "GET /metrics", "GET /", "GET /admin/items/blocked"]
TRIED = [(label, mode) for label in TAKE_INPUT for mode in GenerationMode]
TRIED += [(label, GenerationMode.POSITIVE) for label in TAKE_NONE]


@pytest.fixture(scope="session")
def operations(int_chain: Chain) -> dict[str, Any]:
    """Every operation of the document by its label."""
    schema = schemathesis.openapi.from_wsgi("/openapi.json", int_chain.app)
    return {found.ok().label: found.ok() for found in schema.get_all_operations() if isinstance(found, Ok)}


def test_every_operation_is_tried(operations: dict[str, Any]) -> None:
    assert set(operations) == {*TAKE_INPUT, *TAKE_NONE}


def order_years(case: Any) -> None:
    """Makes a range begin before it ends: the one rule that JSON Schema has no words for."""
    year = ((case.body if isinstance(case.body, dict) else {}).get("filters") or {}).get("year") or {}
    query = case.query if isinstance(case.query, dict) else {}
    for bounds, low, high in ((year, "gte", "lte"), (query, "year_gte", "year_lte")):
        if bounds.get(low) is not None and bounds.get(high) is not None:
            bounds[low], bounds[high] = sorted((bounds[low], bounds[high]))


def give_rows(case: Any) -> None:
    """Makes the uploaded file hold rows: JSON Schema cannot say how its bytes look."""
    case.body = {"file": tsv(make_rows(3)).decode()}


@pytest.mark.parametrize(("label", "mode"), TRIED, ids=lambda value: str(getattr(value, "value", value)))
def test_the_server_keeps_to_its_document(operations: dict[str, Any], label: str, mode: GenerationMode) -> None:
    operation = operations[label]

    @given(case=operation.as_strategy(generation_mode=mode))
    @settings(
        max_examples=30 if label in TAKE_INPUT else 2,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
        derandomize=True,
        database=None,
    )
    def holds(case: Any) -> None:
        if mode is GenerationMode.POSITIVE:
            give_rows(case) if label == "POST /upload" else order_years(case)
        case.call_and_validate()

    holds()
