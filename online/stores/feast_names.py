"""How a release's views, services, keys and columns are called in Feast; imports nothing of Feast, which takes seconds."""

from __future__ import annotations

EVENT_TIMESTAMP = "event_timestamp"
FEATURE_TIMESTAMP = "feature_timestamp"
USER_KEY, ITEM_KEY, SHARD_KEY = "userid", "itemid", "shard"
PAYLOAD = "payload"
KINDS = ("user", "row", "item", "shard")


def view_name(kind: str, release: str) -> str:
    """The name of a release's view and service of this kind (one of KINDS)."""
    return f"ml_{kind}_{release.replace('-', '_')}"


def stable_name(kind: str) -> str:
    """The service that follows the live release."""
    return f"ml_{kind}"
