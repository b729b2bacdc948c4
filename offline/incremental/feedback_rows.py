"""From archived events to the rows of a day that a model learns from.

*Interactions* are what users did: clicks, likes, dislikes and ratings, as the log of interactions has them. *Exposures* are what
users were shown: each impression once, labelled by what its user did about the item afterwards, in the answer to the same request
and within `answer_hours`; an impression that was left alone is a negative. A row of an exposure stands at the moment of its
impression, so that its features know nothing of the answer. An interaction that answers no impression is a row of its own.

What comes late, after the rows of its day were made, becomes part of the day that is made next, at its own timestamp. Rows carry
the ids of the events that they are made of, so that no event is ever used twice.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import pandas as pd
import pyarrow as pa

from data_exchange_center import columns as c
from data_exchange_center.event_archive import judged

Kind = Literal["interactions", "exposures"]
REQUEST, OTHERS = "request_id", "other_events"
_SHOWN = [c.USER_ID, c.ITEM_ID, REQUEST]


@dataclass(frozen=True)
class FeedbackRows:
    """The rows of a day.

    Attributes:
        table: user_id, item_id, timestamp (int64), rating (float32, null where there is none), label (int8), event_id, request_id
            (null where unknown), other_events (ids of what else the row is made of: answers and repetitions of an impression,
            joined by |, else null); by timestamp, then event_id.
        counts: what the rows are made of.
    """

    table: pa.Table = field(repr=False)
    counts: dict[str, int]


def feedback_rows(
    events: pa.Table, kind: Kind, *, until: int, used: Collection[str], answer_seconds: float, positive_above: float
) -> FeedbackRows:
    """The rows of a day.

    Args:
        events: archived events (event_archive.py) of the day, of the days before whose late events are wanted, and of the time
            after in which answers may come.
        kind: interactions or exposures.
        until: end of the day, unix seconds: later events only answer.
        used: ids of events that rows of other days are made of.
    """
    frame = events.to_pandas(types_mapper=_types).drop_duplicates(c.EVENT_ID)
    frame = frame[~frame[c.EVENT_ID].isin(list(used))]
    found = [judged(event, value, positive_above) for event, value in zip(frame["event"], _values(frame), strict=True)]
    acted = np.array([one is not None for one in found], bool)
    actions = frame[acted].assign(
        label=[one[0] for one in found if one is not None],
        rating=pd.array([one[1] for one in found if one is not None], "Float32"),
        **{OTHERS: None},
    )
    if kind == "interactions":
        rows = actions[actions[c.TIMESTAMP] < until]
        counts = {"interactions": len(rows)}
    else:
        rows, counts = _exposures(frame[~acted], actions, until, answer_seconds)
    rows = rows.sort_values([c.TIMESTAMP, c.EVENT_ID], kind="stable")
    return FeedbackRows(_table(rows, events.schema), counts)


def _exposures(
    impressions: pd.DataFrame, actions: pd.DataFrame, until: int, answer_seconds: float
) -> tuple[pd.DataFrame, dict[str, int]]:
    shown = impressions[impressions[c.TIMESTAMP] < until].sort_values([c.TIMESTAMP, c.EVENT_ID], kind="stable")
    known = shown[REQUEST].notna()
    again = known & shown.duplicated(_SHOWN)
    repeats, shown = shown[again], shown[~again]
    answers = actions[actions[REQUEST].notna()]
    pairs = shown[[*_SHOWN, c.TIMESTAMP, c.EVENT_ID]].merge(answers, on=_SHOWN, suffixes=("", "_answer"))
    waited = pairs[f"{c.TIMESTAMP}_answer"] - pairs[c.TIMESTAMP]
    pairs = pairs[(waited >= 0) & (waited <= answer_seconds)]
    # the last word counts; all that was said is used up with the impression
    pairs = pairs.sort_values([f"{c.TIMESTAMP}_answer", f"{c.EVENT_ID}_answer"], kind="stable")
    said = pairs.drop_duplicates(c.EVENT_ID, keep="last").set_index(c.EVENT_ID)
    firsts = shown[[*_SHOWN, c.EVENT_ID]].merge(repeats[[*_SHOWN, c.EVENT_ID]], on=_SHOWN, suffixes=("", "_other"))
    others = pd.concat([pairs.rename(columns={f"{c.EVENT_ID}_answer": f"{c.EVENT_ID}_other"}), firsts])
    every = others.groupby(c.EVENT_ID)[f"{c.EVENT_ID}_other"].agg("|".join)
    shown = shown.assign(
        label=shown[c.EVENT_ID].map(said["label"]).fillna(0).astype("int8"),
        rating=shown[c.EVENT_ID].map(said["rating"]).astype("Float32"),
        **{OTHERS: shown[c.EVENT_ID].map(every).where(shown[c.EVENT_ID].isin(every.index), None)},
    )
    alone = actions[(actions[c.TIMESTAMP] < until) & ~actions[c.EVENT_ID].isin(pairs[f"{c.EVENT_ID}_answer"])]
    counts = {
        "impressions": len(shown),
        "answered": len(said),
        "repeated": len(repeats),
        "unshown": len(alone),
    }
    return pd.concat([shown, alone]) if len(alone) else shown, counts


def events_in(rows: pa.Table) -> set[str]:
    """Ids of the events that rows are made of."""
    found = set(rows[c.EVENT_ID].to_pylist())
    if OTHERS in rows.column_names:
        found.update(one for joined in rows[OTHERS].to_pylist() if joined for one in joined.split("|"))
    return found


def _values(frame: pd.DataFrame) -> list[float | None]:
    return [None if pd.isna(value) else float(value) for value in frame["value"]]


def _types(kind: pa.DataType) -> pd.api.extensions.ExtensionDtype | None:
    """Ids stay integers where a column has gaps."""
    return pd.Int64Dtype() if kind == pa.int64() else None


def _table(rows: pd.DataFrame, schema: pa.Schema) -> pa.Table:
    return pa.table(
        {
            c.USER_ID: pa.array(rows[c.USER_ID], schema.field(c.USER_ID).type),
            c.ITEM_ID: pa.array(rows[c.ITEM_ID], schema.field(c.ITEM_ID).type),
            c.TIMESTAMP: pa.array(rows[c.TIMESTAMP], pa.int64()),
            c.RATING: pa.array(rows["rating"], pa.float32()),
            c.LABEL: pa.array(rows["label"], pa.int8()),
            c.EVENT_ID: pa.array(rows[c.EVENT_ID], pa.string()),
            REQUEST: pa.array(rows[REQUEST], pa.string(), from_pandas=True),
            OTHERS: pa.array(rows[OTHERS], pa.string(), from_pandas=True),
        }
    )
