"""All metrics of the server, declared once. Safe with several gunicorn workers: `PROMETHEUS_MULTIPROC_DIR`, when it is set
before prometheus_client is imported, makes every worker write to files there and `/metrics` sum them."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    Metric,
    generate_latest,
    multiprocess,
    values,
)
from prometheus_client.registry import Collector

from online.pipeline.context import SHARES

REGISTRY = CollectorRegistry()


def _counted(counter: Counter, *outcomes: str) -> Counter:
    """The counter with its outcomes at zero from the start: what first appears as 1 has, to Prometheus, never increased."""
    for outcome in outcomes:
        counter.labels(outcome)
    return counter


_SECONDS = (0.001, 0.002, 0.003, 0.004, 0.006, 0.008, 0.012, 0.02, 0.03, 0.05, 0.1, 0.15, 0.25, 0.5, 1.0, 2.5)
_STAGE_SECONDS = (0.0001, 0.0002, 0.0004, 0.0008, 0.0015, 0.003, 0.006, 0.012, 0.025, 0.05, 0.1, 0.25, 1.0)

REQUESTS = Counter(
    "marquee_requests", "Requests answered, by route and status.", ["route", "status"], registry=REGISTRY
)
LATENCY = Histogram(
    "marquee_request_seconds", "Time to answer, by route.", ["route"], buckets=_SECONDS, registry=REGISTRY
)
LISTS_ANSWERED, LIST_LATENCY = REQUESTS.labels("/ml/rec", 200), LATENCY.labels("/ml/rec")  # looked up once
STAGES = Histogram(
    "marquee_stage_seconds",
    "Time of each stage of a recommendation.",
    ["stage"],
    buckets=_STAGE_SECONDS,
    registry=REGISTRY,
)
DEGRADED = Counter(
    "marquee_degraded", "Answers that had to do without a part, by the part.", ["part"], registry=REGISTRY
)
BREAKER_OPENINGS = _counted(
    Counter(
        "marquee_breaker_openings",
        "Times that a store failed several times in a row and was left alone for a while, by the part that it answers.",
        ["part"],
        registry=REGISTRY,
    ),
    *SHARES,
)
EXPLORED = Counter("marquee_explored_items", "Items of answers that exploration drew in.", registry=REGISTRY)
COLD_STARTS = Counter("marquee_cold_starts", "Answers to users whom the release does not know.", registry=REGISTRY)
EVENTS = _counted(
    Counter("marquee_events", "Events received: accepted, duplicate or refused.", ["outcome"], registry=REGISTRY),
    "accepted",
    "duplicate",
    "refused",
)
BLOCKINGS = _counted(
    Counter(
        "marquee_item_blockings",
        "Items that an administrator blocked or unblocked, or that the store refused to.",
        ["outcome"],
        registry=REGISTRY,
    ),
    "blocked",
    "unblocked",
    "refused",
)
BLOCKED_ITEMS = Gauge(
    "marquee_blocked_items",
    "Items that are in no list, as a worker was told last.",
    registry=REGISTRY,
    multiprocess_mode="livemostrecent",
)
ANSWERS_LOGGED = _counted(
    Counter(
        "marquee_answers_logged",
        "Answered lists: kept, dropped (queue full) or failed.",
        ["outcome"],
        registry=REGISTRY,
    ),
    "kept",
    "dropped",
    "failed",
)
UPLOADED_ROWS = Counter("marquee_uploaded_rows", "Rows of uploaded files that were scored.", registry=REGISTRY)
UPLOAD_SECONDS = Histogram(
    "marquee_upload_seconds",
    "Time to receive, parse and score an uploaded file.",
    buckets=(0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0),
    registry=REGISTRY,
)
FEATURE_AGE = Gauge(
    "marquee_feature_age_seconds",
    "Time since the moment as of which the live release's features hold.",
    registry=REGISTRY,
    multiprocess_mode="livemax",
)
FEATURES_STALE = Gauge(
    "marquee_features_stale",
    "1 when that is longer than `features.max_age_hours` allows; stores do not expire features by themselves.",
    registry=REGISTRY,
    multiprocess_mode="livemax",
)
RELEASE_LOADS = _counted(
    Counter(
        "marquee_release_loads",
        "Releases loaded after a flip of the pointer: ok or failed.",
        ["outcome"],
        registry=REGISTRY,
    ),
    "ok",
    "failed",
)
RELEASE_INFO = Gauge(
    "marquee_release_live",
    "1 for the release that a worker answers from.",
    ["release"],
    registry=REGISTRY,
    multiprocess_mode="livemax",
)


def exposition() -> bytes:
    """The Prometheus text of all workers together."""
    if values.ValueClass is values.MutexValue:  # decided when the library was imported, by the variable's presence
        return generate_latest(REGISTRY)
    registry = CollectorRegistry()
    registry.register(_OwnMetrics(multiprocess.MultiProcessCollector(None)))
    return generate_latest(registry)


class _OwnMetrics(Collector):
    """What this module declares; libraries write metrics of their own to the same files."""

    def __init__(self, collector: Collector) -> None:
        self._collector = collector

    def collect(self) -> Iterator[Metric]:
        return (metric for metric in self._collector.collect() if metric.name.startswith("marquee_"))
