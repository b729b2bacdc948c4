"""The features of preprocess.py by the plain loop: for each user, for each of their events, filter what came before and sum."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd

from benchmarks.support.vectorised_pandas import flags_of

UNIT = 1024


class PlainLoop:
    """Features of one user after another.

    Args:
        events: user_id, item_id, timestamp, label, rating.
        items: item_id, genres, year.
    """

    def __init__(
        self, events: pd.DataFrame, items: pd.DataFrame, terms: list[str], term_length: int, history: int
    ) -> None:
        self.events = events.assign(value=events["rating"].fillna(events["label"]).astype("float64"))
        self.events["hour"] = self.events["timestamp"] // 3600 * 3600
        self.history = history
        self.terms_of, self.decades_of = flags_of(items, terms, term_length)
        self.events["item_row"] = pd.Index(items["item_id"]).get_indexer(pd.Index(self.events["item_id"]))
        hours = self.events.groupby("hour").agg(n=("label", "size"), label=("label", "sum"), value=("value", "sum"))
        before = hours.cumsum().shift(fill_value=0)
        self.rates = {
            hour: (label / n, value / n) if n else (0.5, 0.0)
            for hour, (n, label, value) in zip(before.index, before.to_numpy(), strict=True)
        }
        # every rater's own rate just before each event: residuals of items need those of all users
        rates = [self._user_rates(frame) for _, frame in self.events.groupby("user_id")]
        self.events["user_rate"] = pd.concat(rates)
        # in this order once, so that no step below has to sort
        ordered = self.events.sort_values(["timestamp", "item_id", "label", "value"])
        self.of_item = dict(list(ordered.groupby("item_id")))
        self.of_user = dict(list(ordered.groupby("user_id")))

    def _user_rates(self, frame: pd.DataFrame) -> pd.Series:
        rates = []
        times, labels = frame["timestamp"].to_numpy(), frame["label"].to_numpy()
        for now, hour in zip(times, frame["hour"], strict=True):
            before = labels[times < now]
            rates.append(_units((before.sum() + 5 * self.rates[hour][0]) / (len(before) + 5)))
        return pd.Series(rates, index=frame.index)

    def user(self, user: int) -> pd.DataFrame:
        """One row of features per event of the user; arrays as lists."""
        frame = self.of_user[user].copy()
        items = [self._item(row) for row in frame.itertuples()]
        frame["residual"] = frame["label"] - [made["rate_units"] for made in items]
        frame["value_residual"] = frame["value"] - [made["value_units"] for made in items]
        frame["popularity"] = [made["popularity"] for made in items]
        rows = []
        for row, of_item in zip(frame.itertuples(), items, strict=True):
            before = frame[frame["timestamp"] < row.timestamp]
            rows.append({**self._user(before), **of_item, "user_global_rate": of_item["item_global_rate"]})
            rows[-1]["user_global_value"] = of_item["item_global_value"]
        return pd.DataFrame(rows, index=frame.index)

    def _user(self, before: pd.DataFrame) -> dict[str, Any]:
        times = before["timestamp"].to_numpy()
        session = 0
        if len(times):
            gaps = np.flatnonzero(np.diff(times) > 1800)
            session = len(times) - (gaps[-1] + 1 if len(gaps) else 0)
        newest = before.iloc[::-1].head(self.history)
        made: dict[str, Any] = {
            "user_events": len(before),
            "user_positives": before["label"].sum(),
            "user_value_sum": before["value"].sum(),
            "user_value_square_sum": (before["value"] ** 2).sum(),
            "user_residual_sum": before["residual"].sum(),
            "user_value_residual_sum": before["value_residual"].sum(),
            "user_popularity_sum": before["popularity"].sum(),
            "user_first_timestamp": times.min() if len(times) else 0,
            "user_last_timestamp": times.max() if len(times) else 0,
            "user_session_events": session,
            "user_residual_last20": _last(before, "residual", 20),
            "user_value_residual_last20": _last(before, "value_residual", 20),
            "user_positives_last5": _last(before, "label", 5),
            "user_positives_last10": _last(before, "label", 10),
            "user_positives_last20": _last(before, "label", 20),
            "user_values_last5": _last(before, "value", 5),
            "user_values_last20": _last(before, "value", 20),
            "history_items": newest["item_id"].tolist(),
            "history_labels": newest["label"].tolist(),
        }
        terms, decades = self.terms_of[before["item_row"]], self.decades_of[before["item_row"]]
        label, residual = before["label"].to_numpy(), before["residual"].to_numpy()
        return made | {
            "user_term_events": terms.sum(axis=0),
            "user_term_positives": label @ terms,
            "user_term_residual": residual @ terms,
            "user_decade_events": decades.sum(axis=0),
            "user_decade_positives": label @ decades,
        }

    def _item(self, event: Any) -> dict[str, Any]:
        known = self.of_item[event.item_id]
        before = known[known["timestamp"] < event.timestamp]
        rate, value = self.rates[event.hour]
        month = before[before["timestamp"] >= event.timestamp - 30 * 86_400]
        own_rate = (before["label"].sum() + 5 * rate) / (len(before) + 5)
        return {
            "item_events": len(before),
            "item_value_sum": before["value"].sum(),
            "item_residual_sum": (before["label"] - before["user_rate"]).sum(),
            "item_first_timestamp": before["timestamp"].min() if len(before) else 0,
            "item_events_7d": (before["timestamp"] >= event.timestamp - 7 * 86_400).sum(),
            "item_events_30d": len(month),
            "item_positives_30d": month["label"].sum(),
            "item_positives_last20": _last(before, "label", 20),
            "item_rate": own_rate,
            "item_global_rate": rate,
            "item_global_value": value,
            "item_terms": self.terms_of[event.item_row],
            "item_decade": self.decades_of[event.item_row],
            "rate_units": _units(own_rate),
            "value_units": _units((before["value"].sum() + 5 * value) / (len(before) + 5)),
            "popularity": _units(math.log1p(len(before))),
        }


def _units(value: float) -> float:
    return math.floor(value * UNIT + 0.5) / UNIT


def _last(before: pd.DataFrame, measure: str, count: int) -> float:
    total, room = 0.0, count
    for _, group in reversed(list(before.groupby("timestamp")[measure])):
        if room <= 0:
            break
        total += group.sum() * min(1.0, room / len(group))
        room -= len(group)
    return total
