"""The last events of a user as arrays, newest first.

Arrays are gathered in blocks of N consecutive events of a user; the last N events as of any moment lie in two neighbouring blocks,
so the work grows with the log and not with the square of a user's events.
"""

from __future__ import annotations

from collections.abc import Collection

import ibis
import ibis.expr.types as ir

from data_exchange_center import columns as c
from offline.preprocess.judged_events import from_units

# feature -> the event's column, and the type of its elements where it is not the column's
HISTORY_FIELDS = {
    "history_items": c.ITEM_ID,
    "history_labels": "label",
    "history_values": "value",
    "history_timestamps": c.TIMESTAMP,
}


def history_pairs(judged: ir.Table, length: int, wanted: Collection[str]) -> ir.Table:
    """Each block of `length` consecutive events of a user, followed by the block before it.

    Events are ordered by (timestamp, item, label, value), never by row order.

    Args:
        judged: events, see `judged_events`.
        length: events in a block.
        wanted: names out of HISTORY_FIELDS.

    Returns:
        pair_user, pair_block (0, 1, ... for the newer block of each pair), pair_end (number of the user's events up to the
        newest of the pair) and one array per wanted name, newest event first.
    """
    order = [judged[c.TIMESTAMP], judged[c.ITEM_ID], judged.label, judged.value]
    placed = judged.mutate(place=ibis.row_number().over(ibis.window(group_by=c.USER_ID, order_by=order)))
    fields = {"newness": -placed.place, **{name: placed[HISTORY_FIELDS[name]] for name in wanted}}
    if "history_values" in fields:
        fields["history_values"] = from_units(placed.value).cast("float32")
    if "history_labels" in fields:
        fields["history_labels"] = placed.label.cast("float32")
    events = placed.select(c.USER_ID, block=placed.place // length, event=ibis.struct(fields))
    gathered = events.group_by(c.USER_ID, "block").aggregate(events=events.event.collect().sort())
    blocks = gathered.select(
        c.USER_ID,
        "block",
        size=gathered.events.length(),
        **{name: gathered.events.map(lambda event, name=name: event[name]) for name in wanted},
    )
    older = blocks.select(
        older_user=c.USER_ID, older_block=blocks.block + 1, **{f"older_{name}": blocks[name] for name in wanted}
    )
    pairs = blocks.left_join(older, [(c.USER_ID, "older_user"), ("block", "older_block")])
    return pairs.select(
        pair_user=pairs[c.USER_ID],
        pair_block=pairs.block,
        pair_end=pairs.block * length + pairs["size"],
        **{
            name: ibis.ifelse(pairs.older_user.isnull(), pairs[name], pairs[name].concat(pairs[f"older_{name}"]))
            for name in wanted
        },
    )


def with_history(found: ir.Table, pairs: ir.Table, length: int, seen: ir.IntegerColumn) -> ir.Table:
    """Joins the pair of blocks that holds each row's last `length` events.

    Args:
        found: one row per probe, with user_id.
        pairs: see `history_pairs`.
        seen: column of `found`: number of the user's events before the probe.
    """
    placed = found.mutate(history_end=seen, last_block=(seen - 1) // length)
    return placed.left_join(pairs, [(c.USER_ID, "pair_user"), ("last_block", "pair_block")])


def history_array(found: ir.Table, name: str, length: int) -> ir.ArrayValue:
    """The last `length` events before each probe, newest first; empty when there is none."""
    later = found.pair_end - found.history_end  # events of the pair that are not before the probe
    array = found[name][later : later + length]
    return ibis.coalesce(array, ibis.literal([], type=array.type()))
