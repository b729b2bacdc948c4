"""What a user did lately as Redis keeps it beside the stream: one short value per event, in the order in which they came.

    <timestamp> <label> <value> <item>      1792972800 1 4.5 i318

Items are spelled as everywhere (redis_keys.py). A list holds the newest RECENT_KEPT events and ends RECENT_SECONDS after the last
one: by then a release that knows them should long be live.
"""

from __future__ import annotations

from collections.abc import Iterable

from data_exchange_center.event_archive import judged
from online.stores.ports import Event, RecentEvent
from online.stores.redis_keys import id_token, parse_id

RECENT_KEPT = 500
RECENT_SECONDS = 30 * 86_400
SHOWN_KEPT = 500  # items of one user that were shown lately, the newest


def interaction(event: Event, positive_above: float) -> RecentEvent | None:
    """An event as the log of interactions has it (event_archive.judged); None for an impression."""
    found = judged(event.event, event.value, positive_above)
    if found is None:
        return None
    label, rating = found
    return RecentEvent(event.item_id, event.timestamp, label, float(label) if rating is None else rating)


def spelled(event: RecentEvent) -> bytes:
    """The value of one event."""
    return f"{event.timestamp} {event.label} {event.value!r} ".encode() + id_token(event.item_id)


def parsed(values: Iterable[bytes]) -> tuple[RecentEvent, ...]:
    """What `spelled` spelled."""
    found = []
    for entry in values:
        timestamp, label, value, item = entry.split(b" ", 3)
        found.append(RecentEvent(parse_id(item), int(timestamp), int(label), float(value)))
    return tuple(found)
