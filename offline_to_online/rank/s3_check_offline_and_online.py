"""Offline against online: asks a running server for real users' lists and recomputes every number in them.

The offline side reads features row by row from the release's own tables, recall scores from its arrays, and scores with the
torch network. Served and recomputed are compared value by value: raw features, recall scores, what the index found, and the
scores and likes, as values (1e-5) and as logits (1e-4). It fails on any difference, and when there was nothing to compare.
"""

from __future__ import annotations

import argparse
import http.client
import json
import logging
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager
from typing import Any
from urllib.parse import urlsplit

from tqdm import tqdm

from data_exchange_center.errors import InvalidRequest, MarqueeError, ReleaseError, StoreUnavailable
from data_exchange_center.programs import running_program
from data_exchange_center.release import Release, find_release
from data_exchange_center.settings import Settings
from data_exchange_center.step import parser, run_step
from offline_to_online.demo_steps import free_port, wait_until_serving
from offline_to_online.rank.comparison import Comparison, Findings, Score
from offline_to_online.rank.offline_reference import OfflineReference
from offline_to_online.rank.parity_requests import ParityRequest, parity_requests
from online.stores.open import live_release, open_users
from online.stores.ports import Id, RecentEvent

log = logging.getLogger("marquee")

TIMEOUT_S = 30.0
BUDGET_MS = 5000.0  # of a request to a server that is started for the check: it judges values, not speed
AHEAD = 4  # requests under way while an answer is compared
ATTEMPTS, PAUSE_S = 4, 0.6  # for an answer that had to do without a part
Ask = Callable[[ParityRequest], dict[str, Any]]
Accepted = Callable[[Id], Sequence[RecentEvent]]
Answered = tuple[ParityRequest, dict[str, Any], Sequence[RecentEvent]]


def check(settings: Settings, requests: int = 1000, url: str = "") -> dict[str, Any]:
    """Runs the check against a server and the release that it answers from.

    Args:
        requests: how many to send; each known user is asked for before any is asked for twice.
        url: of the server; by default where the settings say, and when nobody answers there, one is started for the check.

    Returns:
        ok, requests, scores, max_abs_delta, max_logit_delta, worst{user, item, feature}, and what was compared.
    """
    from offline.rank.torch_scorer import load_torch_scorer  # torch takes seconds to import: not for --help

    with server(settings, url) as (address, started):
        release = find_release(settings, served_release(address))
        with connected(address) as ask, closing(open_users(settings)) as users:

            def accepted(user: Id) -> Sequence[RecentEvent]:
                return users.read(settings.scene, release.id, user, TIMEOUT_S).recent

            findings = compare(settings, release, ask, load_torch_scorer(release), requests, accepted)
    return {"url": address, "server_started": started, "release": release.id, **summary(findings)}


def compare(
    settings: Settings,
    release: Release,
    ask: Ask,
    score: Score,
    requests: int,
    accepted: Accepted = lambda user: (),
) -> Findings:
    """Sends the requests and compares every answer.

    Args:
        ask: sends one request and returns the answer's JSON.
        score: the offline side's model: raw inputs -> outputs, as the exported graph takes and gives them.
        accepted: what a user did since, as far as the stores have accepted it: the offline side counts it too.

    Raises:
        ReleaseError: the server changed its release during the check.
    """
    reference = OfflineReference(release)
    comparison = Comparison(reference, score, settings.recall.candidates, settings.features.clock)
    last = {user: reference.last_timestamp(user) for user in reference.user_ids}
    sent: Iterable[ParityRequest] = parity_requests(reference.user_ids, reference.items, last, requests, settings.seed)
    answered = fetched_ahead(ask, accepted, sent)
    for request, answer, events in tqdm(answered, "parity", requests, unit="request", leave=False):
        if answer["release"] != release.id:
            raise ReleaseError(
                f"the server went from release {release.id} to {answer['release']} during the check; run it again"
            )
        comparison.add(request, answer, events)
    return comparison.finish()


def fetched_ahead(ask: Ask, accepted: Accepted, requests: Iterable[ParityRequest]) -> Iterator[Answered]:
    """Requests with their answers and their users' events, in order; the server works on the next ones while these are compared."""
    with ThreadPoolExecutor(1) as sender:
        waiting: deque[Future[Answered]] = deque()
        try:
            for request in requests:
                waiting.append(sender.submit(whole_answer, ask, accepted, request))
                if len(waiting) > AHEAD:
                    yield waiting.popleft().result()
            for answered in waiting:
                yield answered.result()
        finally:
            sender.shutdown(cancel_futures=True)


def whole_answer(ask: Ask, accepted: Accepted, request: ParityRequest) -> Answered:
    """An answer in which nothing is missing, if the server can give one, and the events that it knew of: a store may have been slow
    for a moment, and an event may have come while it was made."""
    for attempt in range(ATTEMPTS):
        if attempt:
            time.sleep(PAUSE_S)
        before = accepted(request.user)
        answer = ask(request)
        if not answer["degraded"] and accepted(request.user) == before:
            break
    return request, answer, before


def summary(findings: Findings) -> dict[str, Any]:
    """The findings as the step's JSON; differences are also logged, one example for each feature."""
    for example in findings.examples.values():
        log.error("differs in %d values: %s", findings.differences[example.feature], example)
    if not findings.scores:
        log.error("nothing was compared: no answer held a score")
    for part, count in findings.degraded.items():
        log.error("%d answers had to do without %s", count, part)
    return {
        "ok": findings.ok,
        "requests": findings.requests,
        "scores": findings.scores,
        "values": findings.values,
        "max_abs_delta": findings.max_abs_delta,
        "max_logit_delta": findings.max_logit_delta,
        "worst": findings.named(),
        "differences": dict(findings.differences),
        "degraded": dict(findings.degraded),
    }


@contextmanager
def server(settings: Settings, url: str) -> Iterator[tuple[str, bool]]:
    """The server to ask, and whether it was started here: one that the caller names must be there."""
    address = url.rstrip("/") or f"http://{settings.serve.host}:{settings.serve.port}"
    try:
        served_release(address)
    except StoreUnavailable as error:
        if url:
            raise
        log.info("%s; starting a server for the check", error.message)
    else:
        yield address, False
        return
    live = live_release(settings)
    if live is None:
        raise ReleaseError(f"scene {settings.scene}: nothing is published; run `make publish` first")
    port = free_port(settings.serve.host, settings.serve.port)
    own = settings.with_values(**{"serve.port": port, "serve.budget_ms": BUDGET_MS})
    address = f"http://{own.serve.host}:{own.serve.port}"
    with running_program("online/main/s1_server.py", [], own):
        wait_until_serving(address, live)
        yield address, True


def served_release(url: str) -> str:
    """The release that the server at this URL answers from."""
    with connection_to(url) as connection:
        state = exchange(connection, "GET", "/readyz", None)
    release = state.get("release")
    if not state.get("ready") or not isinstance(release, str):
        raise ReleaseError(f"{url}/readyz: not ready: {state.get('reason') or 'its workers differ in their release'}")
    return release


@contextmanager
def connected(url: str) -> Iterator[Ask]:
    """A function that sends requests over one kept connection."""
    with connection_to(url) as connection:
        yield lambda request: exchange(connection, "POST", request.path, request.body)


@contextmanager
def connection_to(url: str) -> Iterator[http.client.HTTPConnection]:
    """A connection to an http or https URL, closed in the end."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise InvalidRequest(f"{url}: not an http(s) URL", field="url")
    kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    connection = kind(parts.hostname, parts.port, timeout=TIMEOUT_S)
    try:
        yield connection
    finally:
        connection.close()


def exchange(
    connection: http.client.HTTPConnection, method: str, path: str, body: dict[str, Any] | None
) -> dict[str, Any]:
    """One request and its JSON; an answer of 4xx or 5xx is an error, but for `/readyz`, which explains itself."""
    place = f"http://{connection.host}:{connection.port}{path}"
    try:
        content = json.dumps(body).encode() if body is not None else None
        connection.request(method, path, content, {"Content-Type": "application/json"})
        response = connection.getresponse()
        answer = json.loads(response.read())
    except (OSError, http.client.HTTPException) as error:
        raise StoreUnavailable(f"{place}: no answer ({error})") from error
    except ValueError as error:
        raise MarqueeError(f"{place}: status {response.status} and no JSON; is it a Marquee server?") from error
    if response.status >= 400 and path != "/readyz":
        raise MarqueeError(f"{place}: {response.status} for {body}: {answer}")
    return dict(answer)


def main(argv: list[str] | None = None) -> None:
    arguments = parser(__doc__ or "")
    arguments.add_argument("--requests", type=int, default=1000, help="how many to send")
    arguments.add_argument("--url", default="", help="of the server (default: as in the settings, else one is started)")

    def step(settings: Settings, parsed: argparse.Namespace) -> dict[str, Any]:
        if parsed.requests < 1:
            raise InvalidRequest(f"--requests {parsed.requests}: an empty comparison proves nothing", field="requests")
        return check(settings, parsed.requests, parsed.url)

    run_step("s3_check_offline_and_online", arguments, step, argv)


if __name__ == "__main__":
    main()
