"""Asks a running server for a list and prints it.

python online/main/s2_client.py --user 1 --size 10
python online/main/s2_client.py --user 1 --genres Comedy --years 1980 1999 --explain
"""

from __future__ import annotations

import argparse
import http.client
import json
import sys
from typing import Any
from urllib.parse import urlsplit

from data_exchange_center.errors import InvalidRequest, MarqueeError, NotReady, StoreUnavailable
from data_exchange_center.settings import Settings
from data_exchange_center.step import parser, run_step


def post(url: str, path: str, body: dict[str, Any], timeout: float = 30.0) -> dict[str, Any]:
    """Posts JSON and returns the answer's JSON.

    Raises:
        StoreUnavailable: nobody answers at this URL.
        InvalidRequest, NotReady: as the server says; the message carries its reason.
    """
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise InvalidRequest(f"{url}: not an http(s) URL", field="url")
    kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    connection = kind(parts.hostname, parts.port, timeout=timeout)
    try:
        connection.request("POST", path, json.dumps(body).encode(), {"Content-Type": "application/json"})
        response = connection.getresponse()
        content = response.read()
    except (OSError, http.client.HTTPException) as error:
        raise StoreUnavailable(f"{url}: no answer ({error}); start the server with `make serve`") from error
    finally:
        connection.close()
    try:
        answer = json.loads(content)
    except ValueError as error:
        raise MarqueeError(f"{url}{path}: status {response.status} and no JSON; is it a Marquee server?") from error
    if response.status >= 400:
        said = answer.get("error", {})
        failed = {400: InvalidRequest, 503: NotReady}.get(response.status, MarqueeError)
        raise failed(f"{url}{path}: {response.status}: {said.get('message', content)}", field=said.get("field"))
    return dict(answer)


def body_of(arguments: argparse.Namespace) -> dict[str, Any]:
    """The request that the command line describes; what was not given is left to the server's defaults."""
    body: dict[str, Any] = {"userid": _user(arguments), "size": arguments.size}
    filters: dict[str, Any] = {}
    if arguments.genres:
        filters["genres"] = arguments.genres
    if arguments.years:
        filters["year"] = dict(zip(("gte", "lte"), arguments.years, strict=True))
    if filters:
        body["filters"] = filters
    for name in ("channels", "diversity", "min_score", "now"):
        value = getattr(arguments, name)
        if value is not None:
            body[name] = value
    if arguments.explain:
        body["explain"] = True
    return body


def _user(arguments: argparse.Namespace) -> int | str:
    if arguments.string_ids:
        return str(arguments.user)
    try:
        return int(arguments.user)
    except ValueError:
        return str(arguments.user)


def show(answer: dict[str, Any]) -> None:
    """The list as a table on stderr."""
    notes = [f"release {answer['release']}"]
    notes += ["a user whom the release does not know"] if answer["cold_start"] else []
    notes += [f"without {', '.join(answer['degraded'])}"] if answer["degraded"] else []
    print("; ".join(notes), file=sys.stderr)
    print(f"{'rank':>5}  {'item':<14}{'score':>8}{'like':>8}", file=sys.stderr)
    for rank, item in enumerate(answer["item_list"], start=1):
        found = "  ".join(f"{channel} #{place['rank']}" for channel, place in item.get("channels", {}).items())
        print(f"{rank:>5}  {item['itemid']!s:<14}{item['score']:>8.4f}{item['like']:>8.4f}  {found}", file=sys.stderr)


def main(argv: list[str] | None = None) -> None:
    arguments = parser(__doc__ or "")
    arguments.add_argument("--url", help="of the server (default: host and port of the settings)")
    arguments.add_argument("--user", default="1", help="the user's id")
    arguments.add_argument("--string-ids", action="store_true", help="the id is a string even though it is all digits")
    arguments.add_argument("--size", type=int, default=10, help="items in the list")
    arguments.add_argument("--genres", nargs="+", help="any of these")
    arguments.add_argument("--years", nargs=2, type=int, metavar=("FROM", "TO"), help="inclusive")
    arguments.add_argument("--channels", nargs="+", help="recall channels that may propose")
    arguments.add_argument("--diversity", type=float, help="0 to 1")
    arguments.add_argument("--min-score", type=float, help="leave out candidates below")
    arguments.add_argument("--now", type=int, help="the moment of the request, unix seconds")
    arguments.add_argument("--explain", action="store_true", help="show what found each item")

    def step(settings: Settings, parsed: argparse.Namespace) -> dict[str, Any]:
        url = parsed.url or f"http://{settings.serve.host}:{settings.serve.port}"
        answer = post(url.rstrip("/"), "/ml/rec", body_of(parsed))
        show(answer)
        return answer

    run_step("s2_client", arguments, step, argv)


if __name__ == "__main__":
    main()
