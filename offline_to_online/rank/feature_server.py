"""The self-check through Feast's HTTP feature server: what other programs get when they ask for a release's features.

Not in the path of an answer; it is checked when `stores.feature_server` names one. The server looks at its registry every few
seconds, so a release that it does not know yet is asked for again for a while.
"""

from __future__ import annotations

import json
import ssl
import time
import urllib.error
import urllib.request
from typing import Any

import numpy as np
import pyarrow as pa

from data_exchange_center import columns as c
from data_exchange_center.errors import StoreError, StoreUnavailable
from data_exchange_center.feature_spec import Feature
from data_exchange_center.release import Release
from offline_to_online.profiles import sample_rows
from online.stores.feast_names import FEATURE_TIMESTAMP, ITEM_KEY, USER_KEY, stable_name, view_name
from online.stores.stored_features import StoredFeature, id_types, numpy_column, stored_column, stored_features

SAMPLE = 50  # users and items
KNOWN_WITHIN_S = 30.0
TIMEOUT_S = 10.0
PATH = "/get-online-features"


def verify_feature_server(
    release: Release, url: str, *, stable: bool = False, ca_file: str = "", sample: int = SAMPLE, seed: int = 0
) -> dict[str, int]:
    """Compares a random sample of users and items, as the server answers them, with the release's tables.

    Args:
        url: of the server, http(s)://host:port.
        stable: ask the services that follow the live release, `ml_user` and `ml_item`, instead of the release's own.
        ca_file: PEM file of the authority of an https server; the system's when empty.

    Returns:
        http_users, http_items: how many were compared.

    Raises:
        StoreUnavailable: nobody answers, or the server does not come to know the release.
        StoreError: a value differs; the message names the entity and the feature.
    """
    spec = release.spec()
    counts = {}
    for kind, key, column, features in (
        ("user", USER_KEY, c.USER_ID, spec.user_features),
        ("item", ITEM_KEY, c.ITEM_ID, spec.item_features),
    ):
        table = release.table(f"{kind}_features")
        table = table.take(pa.array(sample_rows(table.num_rows, sample, seed)))
        service = stable_name(kind) if stable else view_name(kind, release.id)
        deadline = time.monotonic() + KNOWN_WITHIN_S
        while True:
            try:
                found = ask(url, service, {key: table[column].to_pylist()}, ca_file)
                compare(kind, table, column, features, found)
                break
            except StoreError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.5)
        counts[f"http_{kind}s"] = table.num_rows
    return counts


def ask(url: str, service: str, entities: dict[str, list[Any]], ca_file: str = "") -> dict[str, list[Any]]:
    """Feature -> values in the order of the entities, as JSON has them.

    Raises:
        StoreUnavailable: nobody answers, or the server does not know the service (yet).
    """
    body = json.dumps({"feature_service": service, "entities": entities}).encode()
    request = urllib.request.Request(  # noqa: S310 - the settings' own URL
        url.rstrip("/") + PATH, data=body, headers={"Content-Type": "application/json"}
    )
    context = ssl.create_default_context(cafile=ca_file or None) if url.startswith("https:") else None
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT_S, context=context) as response:  # noqa: S310
            answer = json.load(response)
        names = answer["metadata"]["feature_names"]
        return {name: entry["values"] for name, entry in zip(names, answer["results"], strict=True)}
    except urllib.error.HTTPError as error:
        said = error.read(300).decode(errors="replace")
        raise StoreUnavailable(f"feature server {url}: {error.code} for service {service}: {said}") from error
    except (OSError, ValueError, KeyError) as error:
        raise StoreUnavailable(f"feature server {url}: {error}") from error


def compare(kind: str, table: pa.Table, key: str, features: list[Feature], found: dict[str, list[Any]]) -> None:
    """StoreError unless the answer holds exactly the table's features; the server adds the moment as of which they hold."""
    if found.get(FEATURE_TIMESTAMP) != table[c.TIMESTAMP].to_pylist():
        raise StoreError(f"feature server: {kind} features are of another moment than the release's", field=c.TIMESTAMP)
    for stored in stored_features(features, id_types(features, table)):
        expected = numpy_column(stored, stored_column(stored, table[stored.name]))
        different = differing(stored, expected, found.get(stored.name) or [])
        if different is not None:
            raise StoreError(
                f"feature server: {stored.name} of {kind} {table[key][different].as_py()!r} is not what was written",
                field=stored.name,
            )


def differing(stored: StoredFeature, expected: np.ndarray, values: list[Any]) -> int | None:
    """The first row that differs; None when none does. JSON spells float32 with more digits than it has."""
    if len(values) != len(expected):
        return 0
    for row, value in enumerate(values):
        try:
            same = np.array_equal(np.asarray(value, stored.numpy_dtype), expected[row])
        except (TypeError, ValueError):  # null, or of another type
            same = False
        if not same:
            return row
    return None
