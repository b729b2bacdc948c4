"""A simulated business: which shop to recommend for a car repair, day after day, with a truth that is known.

What decides whether a customer takes the shop that was shown:

- *brand and shop*: the product of two hidden vectors, and a number of each alone; they turn slowly (`drift`), so that a model
  that is never trained again loses;
- *complaint and specialty*: a shop that is good at what is broken is taken; both can be read from the text;
- distance, price, rating, and how much customers of a city mind the price.

New brands and shops appear on known days. New brands have strong preferences of their own: learning them pays. On poisoned days
a share of the labels is flipped. A row's probability before that is `truth`.

Every day can be made alone: it depends on the seed and its number only.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from functools import cached_property
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
from scipy.special import expit

from data_exchange_center.errors import DataError, SettingsError
from data_exchange_center.workspace import write_table
from offline.datasets.repair_texts import BRANDS, KINDS, LANGUAGES, brand_name, complaint_of, text_of

FIRST_DAY = date(2026, 1, 1)  # day 0; the history lies before it
HISTORY_DAYS = 10
SHOPS, CITIES = 96, 12
FIRST_SHOP, FIRST_CITY = 1000, 10
FACTORS = 2
LATER_SHARE = 0.03  # of the rows that each new brand has, about
MOST_ROWS, MOST_DAYS = 10_000_000, 3650
DAY_S = 86_400

SCHEMA = pa.schema(
    [
        ("label", pa.float32()),
        ("car_brand", pa.string()),
        ("shop_id", pa.int64()),
        ("city_id", pa.int64()),
        ("distance_km", pa.float32()),
        ("price_score", pa.float32()),
        ("rating", pa.float32()),
        ("text_raw", pa.string()),
        ("timestamp", pa.int64()),
        ("event_id", pa.string()),
    ]
)


@dataclass(frozen=True)
class RepairShopConfig:
    """What is generated.

    Attributes:
        seed: of the truth and the rows.
        rows_per_day: of each day.
        days: days 0 to days - 1 exist.
        poisoned_days: days on which labels are flipped.
        flipped: share of a poisoned day's labels.
        new_brands, new_shops: the day on which each later brand or shop appears.
        drift: by how much affinities turn, in radians a day.
        history_rows: rows before day 0.
    """

    seed: int = 0
    rows_per_day: int = 2000
    days: int = 40
    poisoned_days: tuple[int, ...] = ()
    flipped: float = 0.3
    new_brands: tuple[int, ...] = (2, 2, 7, 7, 12, 12, 17, 17, 22, 22, 27, 27)
    new_shops: tuple[int, ...] = (4, 9, 14, 19, 24, 29)
    drift: float = 0.015
    history_rows: int = 20_000

    def __post_init__(self) -> None:
        _bounded("seed", self.seed, 0, 2**63 - 1)
        _bounded("rows_per_day", self.rows_per_day, 1, MOST_ROWS)
        _bounded("history_rows", self.history_rows, 1, MOST_ROWS)
        _bounded("days", self.days, 1, MOST_DAYS)
        _bounded("flipped", self.flipped, 0, 1)
        _bounded("drift", self.drift, 0, 1)
        for name in ("poisoned_days", "new_brands", "new_shops"):
            for day in getattr(self, name):
                _bounded(name, day, 0, MOST_DAYS)


def _bounded(name: str, value: float, low: float, high: float) -> None:
    if not low <= value <= high:
        raise SettingsError(f"repair shop: {name} must lie between {low} and {high}, not {value}", field=name)


@dataclass(frozen=True)
class DayFacts:
    """What happens on a day: whether its labels are poisoned, and who appears on it."""

    poisoned: bool
    new_brands: tuple[str, ...]
    new_shops: tuple[int, ...]


class RepairShopLog:
    """The generator."""

    def __init__(self, config: RepairShopConfig) -> None:
        self.config = config
        brands, shops = len(BRANDS) + len(config.new_brands), SHOPS + len(config.new_shops)
        self.brands = tuple(brand_name(number, len(BRANDS)) for number in range(brands))
        self._brand_day = np.array([-HISTORY_DAYS] * len(BRANDS) + list(config.new_brands))
        self._shop_day = np.array([-HISTORY_DAYS] * SHOPS + list(config.new_shops))
        random = np.random.default_rng([config.seed, 0])
        common = 1.0 / (np.arange(len(BRANDS)) + 4.0)
        later = np.full(len(config.new_brands), LATER_SHARE * common.sum())
        self._popularity = np.concatenate([common, later])
        self._brand = _Turning(config.seed, 1, brands, FACTORS)
        self._shop = _Turning(config.seed, 2, shops, FACTORS)
        self._brand_own = _Turning(config.seed, 3, brands, 1)
        self._shop_own = _Turning(config.seed, 4, shops, 1)
        self._shop_facts = np.stack([np.random.default_rng([config.seed, 5, shop]).random(4) for shop in range(shops)])
        self._match = 0.35 * random.normal(size=(len(KINDS), len(KINDS))) + 1.6 * np.eye(len(KINDS))
        self._price_minded = random.uniform(0.3, 1.3, CITIES)
        self._city_own = random.normal(0, 0.2, CITIES)

    def history(self) -> pa.Table:
        """The days before day 0, oldest first: what the first training sees."""
        rows = self.config.history_rows
        cuts = [rows * place // HISTORY_DAYS for place in range(HISTORY_DAYS + 1)]
        made = [
            self._made(place - HISTORY_DAYS, after - before) for place, (before, after) in enumerate(pairwise(cuts))
        ]
        return pa.concat_tables(made).combine_chunks()

    def day(self, number: int) -> pa.Table:
        """The rows of a day, by time.

        Raises:
            DataError: there is no such day.
        """
        self._check(number)
        return self._made(number, self.config.rows_per_day)

    def fresh(self, number: int, rows: int) -> pa.Table:
        """Other rows of a day's kind, which no log holds and nobody poisoned: what models are tested on.

        Raises:
            DataError: there is no such day.
        """
        self._check(number)
        table = self._drawn(np.random.default_rng([self.config.seed, 9, number + HISTORY_DAYS]), number, rows)
        draw = np.random.default_rng([self.config.seed, 10, number + HISTORY_DAYS])
        return _labelled(table, draw.random(rows) < self.truth(table))

    def facts(self, number: int) -> DayFacts:
        """What happens on a day.

        Raises:
            DataError: there is no such day.
        """
        self._check(number)
        return DayFacts(
            number in self.config.poisoned_days,
            tuple(self.brands[place] for place in np.flatnonzero(self._brand_day == number)),
            tuple(FIRST_SHOP + int(place) for place in np.flatnonzero(self._shop_day == number)),
        )

    def truth(self, table: pa.Table) -> np.ndarray:
        """The probability of label 1 before any poisoning, float64 [rows].

        Args:
            table: rows of this log, any of them in any order.

        Raises:
            DataError: a row that this log cannot have made.
        """
        return expit(self._logit(table) + self._intercept)

    def _check(self, number: int) -> None:
        if not 0 <= number < self.config.days:
            raise DataError(f"repair shop: there is no day {number}, only 0 to {self.config.days - 1}")

    def _made(self, number: int, rows: int) -> pa.Table:
        table = self._drawn(np.random.default_rng([self.config.seed, 6, number + HISTORY_DAYS]), number, rows)
        draw = np.random.default_rng([self.config.seed, 7, number + HISTORY_DAYS])
        label = draw.random(rows) < self.truth(table)
        if number in self.config.poisoned_days:
            label = label ^ (draw.random(rows) < self.config.flipped)
        return _labelled(table, label)

    def _drawn(self, random: np.random.Generator, number: int, rows: int) -> pa.Table:
        """A day's rows without labels."""
        share = np.where(self._brand_day <= number, self._popularity, 0.0)
        brand = random.choice(len(share), rows, p=share / share.sum())
        open_shops = np.flatnonzero(self._shop_day <= number)
        shop = random.choice(open_shops, rows)
        complaint, language = random.integers(len(KINDS), size=rows), random.integers(LANGUAGES, size=rows)
        matched = random.random(rows) < 0.2  # some search for a shop of the right kind
        complaint = np.where(matched, self._specialty[shop], complaint)
        distance = np.round(np.exp(random.normal(1.5, 0.8, rows)), 1)
        price = np.clip(self._shop_facts[shop, 2] + random.normal(0, 0.1, rows), 0, 1)
        rating = np.clip(3.0 + 2.0 * self._shop_facts[shop, 3] + random.normal(0, 0.15, rows), 1, 5)
        moment = np.sort(random.integers(DAY_S, size=rows)) + _midnight(number)
        names = np.array(self.brands, dtype=object)[brand]
        texts = [text_of(*row) for row in zip(names, complaint, self._specialty[shop], language, strict=True)]
        columns = [
            pa.nulls(rows, pa.float32()),
            pa.array(names, pa.string()),
            pa.array(FIRST_SHOP + shop),
            pa.array(FIRST_CITY + self._city[shop]),
            pa.array(distance.astype(np.float32)),
            pa.array(price.astype(np.float32)),
            pa.array(rating.astype(np.float32)),
            pa.array(texts, pa.string()),
            pa.array(moment),
            pa.array([f"{self.config.seed}.{number}.{place}" for place in range(rows)], pa.string()),
        ]
        return pa.table(columns, schema=SCHEMA)

    @cached_property
    def _specialty(self) -> np.ndarray:
        return (self._shop_facts[:, 0] * len(KINDS)).astype(np.int64)

    @cached_property
    def _city(self) -> np.ndarray:
        return (self._shop_facts[:, 1] * CITIES).astype(np.int64)

    def _logit(self, table: pa.Table) -> np.ndarray:
        """Log-odds without the intercept, [rows]."""
        brand = _places(table["car_brand"], self.brands)
        shop = table["shop_id"].to_numpy() - FIRST_SHOP
        city = table["city_id"].to_numpy() - FIRST_CITY
        complaint = np.array([complaint_of(text) for text in table["text_raw"].to_pylist()], np.int64)
        if (brand < 0).any() or (complaint < 0).any() or (shop < 0).any() or (shop >= len(self._specialty)).any():
            raise DataError("repair shop: a row with a brand, shop or complaint that this log does not have")
        day = (table["timestamp"].to_numpy() - _midnight(0)) / DAY_S
        angle = self.config.drift * day
        strength = np.where(brand < len(BRANDS), 1.0, 1.6)
        affinity = (self._brand.at(brand, angle) * self._shop.at(shop, angle)).sum(1) / np.sqrt(FACTORS)
        own = 0.6 * strength * self._brand_own.at(brand, angle)[:, 0] + 0.6 * self._shop_own.at(shop, angle)[:, 0]
        distance, price, rating = (
            table[name].to_numpy().astype(np.float64) for name in ("distance_km", "price_score", "rating")
        )
        return (
            strength * affinity
            + own
            + self._match[complaint, self._specialty[shop]]
            + self._city_own[city]
            - 0.7 * np.log1p(distance)
            - 2.0 * self._price_minded[city] * (price - 0.5)
            + 0.8 * (rating - 4.0)
        )

    @cached_property
    def _intercept(self) -> float:
        """Brings the positives before day 0 to about three in ten, on rows of its own."""
        logit = self._logit(self._drawn(np.random.default_rng([self.config.seed, 8]), -1, 20_000))
        low, high = -10.0, 10.0
        for _ in range(40):
            middle = (low + high) / 2
            low, high = (middle, high) if expit(logit + middle).mean() < 0.3 else (low, middle)
        return low


def _labelled(table: pa.Table, label: np.ndarray) -> pa.Table:
    return table.set_column(0, SCHEMA.field(0), pa.array(label.astype(np.float32)))


class _Turning:
    """A hidden vector of each thing, which turns from one random direction to another; things do not depend on each other."""

    def __init__(self, seed: int, purpose: int, things: int, factors: int) -> None:
        drawn = [np.random.default_rng([seed, purpose, thing]).normal(size=(2, factors)) for thing in range(things)]
        self._from, self._to = np.stack(drawn, axis=1)

    def at(self, things: np.ndarray, angle: np.ndarray) -> np.ndarray:
        """[rows, factors] of things [rows] at angles [rows]: variance stays the same all the way."""
        return np.cos(angle)[:, None] * self._from[things] + np.sin(angle)[:, None] * self._to[things]


def _places(values: pa.ChunkedArray, names: tuple[str, ...]) -> np.ndarray:
    known = {name: place for place, name in enumerate(names)}
    return np.array([known.get(value, -1) for value in values.to_pylist()], np.int64)


def _midnight(number: int) -> int:
    """Unix seconds at which a day begins, UTC."""
    begun = FIRST_DAY + timedelta(days=number)
    return int(datetime(begun.year, begun.month, begun.day, tzinfo=UTC).timestamp())


def day_path(folder: Path, number: int) -> Path:
    """Where a day's rows lie below a folder, as users lay out their own: `days/<YYYY-MM-DD>/rows.parquet`."""
    return folder / "days" / (FIRST_DAY + timedelta(days=number)).isoformat() / "rows.parquet"


def write_day(log: RepairShopLog, number: int, folder: Path) -> Path:
    """Writes a day below a folder (see `day_path`), atomically; returns its path."""
    path = day_path(folder, number)
    write_table(path, log.day(number))
    return path
