"""The last events of a user as an array, newest first.

Arrays are gathered in blocks of N consecutive events of a user; the last N events as of any moment lie in two neighbouring blocks,
so the work grows with the log and not with the square of a user's events.
"""

from __future__ import annotations

import ibis
import ibis.expr.types as ir

from data_exchange_center import columns as c

HISTORY_FIELDS = {
    "history_items": c.ITEM_ID,
    "history_labels": "label",
    "history_values": "value",
    "history_timestamps": c.TIMESTAMP,
}


def blocks_of(judged: ir.Table, length: int) -> ir.Table:
    """Blocks of `length` consecutive events of each user, ordered by (timestamp, item, label, value): never by row order.

    Returns:
        user_id, block (0, 1, ...), events (array of structs, newest first).
    """
    order = [judged[c.TIMESTAMP], judged[c.ITEM_ID], judged.label, judged.value]
    place = ibis.row_number().over(ibis.window(group_by=c.USER_ID, order_by=order))
    placed = judged.mutate(place=place)
    fields = {"newness": -placed.place, **{field: placed[field] for field in HISTORY_FIELDS.values()}}
    blocks = placed.mutate(block=_block(placed.place, length), event=ibis.struct(fields))
    return blocks.group_by(c.USER_ID, "block").aggregate(events=blocks.event.collect().sort())


def last_events(states: ir.Table, judged: ir.Table, length: int, seen: str) -> ir.Table:
    """Adds `history` to a table of user states: an array of structs, the user's last `length` events so far, newest first.

    Args:
        states: user_id and `seen`, the number of the user's events so far, at least 1.
        judged: events, see `judged_events`.
    """
    blocks = blocks_of(judged, length)
    older = blocks.select(older_user=c.USER_ID, older_block=blocks.block + 1, older_events=blocks.events)
    pairs = blocks.left_join(older, [(c.USER_ID, "older_user"), ("block", "older_block")])
    pairs = pairs.select(
        pair_user=pairs[c.USER_ID],
        pair_block="block",
        pair=ibis.ifelse(pairs.older_events.isnull(), pairs.events, pairs.events.concat(pairs.older_events)),
        newest=pairs.block * length + pairs.events.length(),
    )
    placed = states.mutate(last_block=_block(states[seen] - 1, length))
    joined = placed.left_join(pairs, [(c.USER_ID, "pair_user"), ("last_block", "pair_block")])
    not_yet = joined.newest - joined[seen]  # events of the block that come later
    return joined.mutate(history=joined.pair[not_yet : not_yet + length]).drop(
        "last_block", "pair_user", "pair_block", "pair", "newest"
    )


def _block(place: ir.IntegerValue, length: int) -> ir.IntegerValue:
    return place // length
