"""The features of preprocess.py in vectorised pandas, as a careful data scientist writes them: group by, cumsum, shift, rolling,
merge_asof, and numpy where pandas has no word for it. No loops over users, items or rows.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

DECADES = 9
UNIT = 1024


def half_up(values: pd.Series) -> pd.Series:
    """Rounds as SQL does."""
    return np.floor(values + 0.5)


def vectorised_features(
    events: pd.DataFrame, items: pd.DataFrame, terms: list[str], term_length: int, history: int
) -> dict[str, np.ndarray]:
    """Features of every event, in their order; arrays are two-dimensional, histories padded with -1.

    Args:
        events: user_id, item_id, timestamp, label, rating.
        items: item_id, genres, year.
    """
    log = events[["user_id", "item_id", "timestamp", "label", "rating"]].copy()
    log["value"] = log["rating"].fillna(log["label"]).astype("float64")
    log["n"] = 1
    log["hour"] = log["timestamp"] // 3600 * 3600
    log = log.join(_log_before_hour(log), on="hour")
    before_item = _before(log, "item_id", ["n", "label", "value"])
    before_user = _before(log, "user_id", ["n", "label", "value"])
    log["item_rate"] = _smoothed_units(before_item["label"], before_item["n"], log["global_rate"])
    log["item_value"] = _smoothed_units(before_item["value"], before_item["n"], log["global_value"])
    log["user_rate"] = _smoothed_units(before_user["label"], before_user["n"], log["global_rate"])
    log["user_value"] = _smoothed_units(before_user["value"], before_user["n"], log["global_value"])
    log["popularity"] = half_up(np.log1p(before_item["n"]) * UNIT) / UNIT
    log["residual"] = log["label"] - log["item_rate"]
    log["value_residual"] = log["value"] - log["item_value"]
    log["square"] = log["value"] ** 2
    of_row = pd.Index(items["item_id"]).get_indexer(pd.Index(log["item_id"]))
    flags, decades = (of_item[of_row] for of_item in flags_of(items, terms, term_length))
    made = _users(log, flags, decades)
    made |= _histories(log, history)
    made |= _items(log)
    made |= {"item_terms": flags, "item_decade": decades}
    made |= {"user_global_rate": log["global_rate"].to_numpy(), "user_global_value": log["global_value"].to_numpy()}
    made["item_global_value"] = made["user_global_value"]
    return made


def _log_before_hour(log: pd.DataFrame) -> pd.DataFrame:
    totals = log.groupby("hour")[["n", "label", "value"]].sum().cumsum().shift(fill_value=0)
    rate = (totals["label"] / totals["n"]).fillna(0.5)
    return pd.DataFrame({"global_rate": rate, "global_value": (totals["value"] / totals["n"]).fillna(0.0)})


def _groups(log: pd.DataFrame, key: str, measures: list[str]) -> pd.DataFrame:
    return log.groupby([key, "timestamp"], sort=True)[measures].sum()


def _exclusive(groups: pd.DataFrame, key: str) -> pd.DataFrame:
    return groups.groupby(level=key, sort=False).cumsum() - groups


def _before(log: pd.DataFrame, key: str, measures: list[str]) -> pd.DataFrame:
    """Totals of an entity strictly before each event."""
    totals = _exclusive(_groups(log, key, measures), key)
    return log[[key, "timestamp"]].join(totals, on=[key, "timestamp"])[measures]


def _smoothed_units(total: pd.Series, count: pd.Series, prior: pd.Series) -> pd.Series:
    return half_up((total + prior * 5) / (count + 5) * UNIT) / UNIT


def flags_of(items: pd.DataFrame, terms: list[str], term_length: int) -> tuple[np.ndarray, np.ndarray]:
    """Flags of each item's terms and of its decade, one row per item."""
    of_term = np.zeros((len(items), term_length), np.float32)
    exploded = items["genres"].explode().dropna()
    place = pd.Index(terms).get_indexer(pd.Index(exploded))
    of_term[exploded.index.to_numpy()[place >= 0], place[place >= 0]] = 1
    of_decade = np.zeros((len(items), DECADES), np.float32)
    years = items["year"].to_numpy()
    dated = years > 0
    of_decade[dated, ((years[dated] - 1920) // 10).clip(0, DECADES - 1)] = 1
    return of_term, of_decade


def _users(log: pd.DataFrame, flags: np.ndarray, decades: np.ndarray) -> dict[str, np.ndarray]:
    arrays = {
        "user_term_events": flags,
        "user_term_positives": flags * log[["label"]].to_numpy(),
        "user_term_residual": flags * log[["residual"]].to_numpy(),
        "user_decade_events": decades,
        "user_decade_positives": decades * log[["label"]].to_numpy(),
    }
    wide = pd.concat(
        [pd.DataFrame(array, index=log.index).add_prefix(f"{name}#") for name, array in arrays.items()], axis=1
    )
    scalars = ["n", "label", "value", "square", "residual", "value_residual", "popularity"]
    frame = pd.concat([log[["user_id", "timestamp", *scalars]], wide], axis=1)
    groups = _groups(frame, "user_id", [*scalars, *wide.columns])
    totals = _exclusive(groups, "user_id")
    found = totals.copy()
    times = groups.index.get_level_values("timestamp").to_series(index=groups.index)
    by_user = times.groupby(level="user_id", sort=False)
    previous = by_user.shift()
    found["last"] = previous.fillna(0).astype("int64")
    found["first"] = by_user.transform("first").where(previous.notna(), 0).astype("int64")
    session = (previous.isna() | (times - previous > 1800)).groupby(level="user_id", sort=False).cumsum()
    in_session = groups["n"].groupby([session.index.get_level_values("user_id"), session.to_numpy()]).cumsum()
    found["session"] = in_session.groupby(level="user_id", sort=False).shift(fill_value=0)
    for count, measures in (
        (5, ["label", "value"]),
        (10, ["label"]),
        (20, ["label", "value", "residual", "value_residual"]),
    ):
        found = found.join(_last(groups, totals, "user_id", count, measures))
    rows = log[["user_id", "timestamp"]].join(found, on=["user_id", "timestamp"])
    names = {
        "user_events": "n", "user_positives": "label", "user_value_sum": "value", "user_value_square_sum": "square",
        "user_residual_sum": "residual", "user_value_residual_sum": "value_residual",
        "user_popularity_sum": "popularity", "user_first_timestamp": "first", "user_last_timestamp": "last",
        "user_session_events": "session", "user_positives_last5": "label_5", "user_positives_last10": "label_10",
        "user_positives_last20": "label_20", "user_values_last5": "value_5", "user_values_last20": "value_20",
        "user_residual_last20": "residual_20", "user_value_residual_last20": "value_residual_20",
    }  # fmt: skip
    made: dict[str, np.ndarray] = {feature: rows[column].to_numpy() for feature, column in names.items()}
    for name in arrays:
        made[name] = rows[[column for column in wide.columns if column.startswith(f"{name}#")]].to_numpy()
    return made


def _last(groups: pd.DataFrame, totals: pd.DataFrame, key: str, count: int, measures: list[str]) -> pd.DataFrame:
    """Sums over the last `count` events before each group: the total so far minus the interpolated total `count` events ago."""
    state = totals[["n", *measures]].reset_index()
    state["size"] = groups["n"].to_numpy()
    for measure in measures:
        state[f"{measure}_own"] = groups[measure].to_numpy()
    asked = state[[key, "timestamp", "n"]].copy()
    asked["edge"] = (asked["n"] - count).clip(lower=0)
    asked = asked.sort_values("edge", kind="stable")
    found = pd.merge_asof(
        asked, state.drop(columns="timestamp").sort_values("n", kind="stable"),
        left_on="edge", right_on="n", by=key, suffixes=("", "_then"),
    )  # fmt: skip
    share = (found["edge"] - found["n_then"]) / found["size"]
    at_edge = pd.DataFrame({m: found[m] + share * found[f"{m}_own"] for m in measures})
    at_edge.index = pd.MultiIndex.from_frame(found[[key, "timestamp"]])
    return (totals[measures] - at_edge.reindex(totals.index)).add_suffix(f"_{count}")


def _histories(log: pd.DataFrame, length: int) -> dict[str, np.ndarray]:
    order = log.sort_values(["user_id", "timestamp", "item_id", "label", "value"]).index.to_numpy()
    ordered = log.loc[order]
    place = np.arange(len(log))
    start = pd.Series(place).groupby(ordered["user_id"].to_numpy()).transform("first").to_numpy()
    tie = pd.Series(place).groupby([ordered["user_id"].to_numpy(), ordered["timestamp"].to_numpy()])
    end = tie.transform("first").to_numpy()
    wanted = end[:, None] - 1 - np.arange(length)[None, :]
    valid = wanted >= start[:, None]
    wanted = np.where(valid, wanted, 0)
    back = np.empty(len(log), np.int64)
    back[order] = place
    made = {}
    for name, column in (("history_items", "item_id"), ("history_labels", "label")):
        made[name] = np.where(valid, ordered[column].to_numpy()[wanted], -1)[back]
    return made


def _items(log: pd.DataFrame) -> dict[str, np.ndarray]:
    frame = log[["item_id", "timestamp", "n", "label", "value"]].copy()
    frame["residual"] = log["label"] - log["user_rate"]
    measures = ["n", "label", "value", "residual"]
    groups = _groups(frame, "item_id", measures)
    totals = _exclusive(groups, "item_id")
    found = totals.copy()
    times = groups.index.get_level_values("timestamp").to_series(index=groups.index)
    first = times.groupby(level="item_id", sort=False).transform("first")
    found["first"] = first.where(totals["n"] > 0, 0)
    clock = groups[["n", "label"]].reset_index().assign(time=pd.to_datetime(times.to_numpy(), unit="s"))
    for days, columns in ((7, ["n"]), (30, ["n", "label"])):
        # closed="both" holds the probe's own second too: its events are taken away again
        rolled = (
            clock.set_index("time").groupby("item_id", sort=False)[columns].rolling(f"{days}D", closed="both").sum()
        )
        found[[f"{name}_{days}d" for name in columns]] = rolled.to_numpy() - groups[columns].to_numpy()
    found = found.join(_last(groups, totals, "item_id", 20, ["label"]))
    rows = log[["item_id", "timestamp", "global_rate"]].join(found, on=["item_id", "timestamp"])
    made = {
        "item_events": rows["n"], "item_value_sum": rows["value"], "item_residual_sum": rows["residual"],
        "item_first_timestamp": rows["first"], "item_events_7d": rows["n_7d"], "item_events_30d": rows["n_30d"],
        "item_positives_30d": rows["label_30d"], "item_positives_last20": rows["label_20"],
        "item_rate": (rows["label"] + rows["global_rate"] * 5) / (rows["n"] + 5),
    }  # fmt: skip
    return {name: values.to_numpy() for name, values in made.items()}
