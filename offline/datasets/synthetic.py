"""Generated data, shaped like MovieLens, with a preference structure that is known and written beside the tables.

What is in it, so that every part of the system has something to find:

- *taste*: user and item vectors of `FACTORS` numbers. A user's vector leans towards the centers of the genres that the user
  likes, an item's lies around the centers of its genres, so both side features and co-occurrence tell about it;
- *genre taste*: how much a user likes each genre, drawn around what people of that occupation and gender like;
- *age*: older users lean to older movies;
- *popularity*: a heavy tail over items, related to their quality but not the same;
- *users who rate high or low*, and noise on each rating.

A user chooses movies without replacement, by popularity times exp(`CHOICE` * preference): an exact draw by Gumbel noise. Then
the user rates each: preference, quality, the user's level and noise, rounded to 1 to 5. Movies are watched in sessions, many of
them in the same second, as in MovieLens, and in no order: what comes next is as likely as what came before.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
import pyarrow as pa
from scipy.special import ndtr

from data_exchange_center import columns as c
from data_exchange_center.errors import SettingsError
from data_exchange_center.tables import STRINGS
from data_exchange_center.workspace import Workspace, read_array
from offline.datasets.canonical import Dataset, assemble

FACTORS = 8
CHOICE = 1.4  # how much preference, against popularity, decides what is watched
NOISE = 0.75  # standard deviation of a rating around what the user thinks, in stars
TAIL = 1.1  # exponent of the popularity's tail
WHOLE_CATALOG = 4096  # up to so many items a user chooses among all of them,
POOL = 1024  # beyond it among at least so many, drawn by popularity
START, DAYS = 874_724_710, 215  # the moment and the length of the log
GENRES = (
    "Action", "Adventure", "Animation", "Children's", "Comedy", "Crime", "Documentary", "Drama", "Fantasy", "Film-Noir",
    "Horror", "Musical", "Mystery", "Romance", "Sci-Fi", "Thriller", "War", "Western",
)  # fmt: skip
OCCUPATIONS = (
    "artist",
    "educator",
    "engineer",
    "executive",
    "homemaker",
    "other",
    "retired",
    "student",
    "technician",
    "writer",
)


@dataclass(frozen=True)
class Truth:
    """The preference structure.

    Attributes:
        user_factors: [users, FACTORS] float32. item_factors: [items, FACTORS] float32.
        genre_tastes: [users, genres] float32. item_genres: [items, genres] float32, rows sum to 1.
        year_tastes: [users] float32. item_years: [items] float32, standardized.
        user_levels: [users] float32, in stars. item_quality: [items] float32, in stars.
        popularity: [items] float32, log weight of being met at all.
    """

    user_factors: np.ndarray
    item_factors: np.ndarray
    genre_tastes: np.ndarray
    item_genres: np.ndarray
    year_tastes: np.ndarray
    item_years: np.ndarray
    user_levels: np.ndarray
    item_quality: np.ndarray
    popularity: np.ndarray

    def preference(self, users: np.ndarray, items: np.ndarray) -> np.ndarray:
        """How much users prefer items over others: broadcast over 0-based rows of the tables, about standard normal."""
        return (
            np.einsum("...d,...d->...", self.user_factors[users], self.item_factors[items])
            + np.einsum("...d,...d->...", self.genre_tastes[users], self.item_genres[items])
            + self.year_tastes[users] * self.item_years[items]
        )

    def choice(self, users: np.ndarray, items: np.ndarray) -> np.ndarray:
        """Log weight with which users choose items: the order in which a perfect recommender lists them."""
        return CHOICE * self.preference(users, items) + self.popularity[items]

    def stars(self, users: np.ndarray, items: np.ndarray) -> np.ndarray:
        """The rating in stars before noise and rounding."""
        return 2.9 + 0.45 * self.preference(users, items) + self.user_levels[users] + self.item_quality[items]

    def like_probability(self, users: np.ndarray, items: np.ndarray, positive_above: float = 3.0) -> np.ndarray:
        """Probability of a rating above a whole number of stars: what a perfect ranker answers."""
        return ndtr((self.stars(users, items) - (np.floor(positive_above) + 0.5)) / NOISE)

    def arrays(self) -> dict[str, np.ndarray]:
        """Name -> array, as written beside the tables."""
        return dict(vars(self))


def read_truth(workspace: Workspace) -> Truth:
    """The truth that `load_dataset` wrote beside the generated tables."""
    return Truth(**{one.name: read_array(workspace.tables / "truth" / f"{one.name}.npy") for one in fields(Truth)})


def generate(users: int, items: int, events: int, seed: int, positive_above: float = 3.0) -> Dataset:
    """Makes a dataset of exactly the asked sizes; the same arguments give the same tables.

    Args:
        users, items, events: rows of the three tables.
        seed: of everything that is drawn.
        positive_above: a rating strictly above this is a positive.

    Returns:
        The dataset with ids from 1, and its `Truth` as arrays.

    Raises:
        SettingsError: more events than users can have on so few items.
    """
    random = np.random.default_rng(seed)
    counts = _event_counts(random, users, items, events)
    user_table, tastes, levels, year_tastes = _users(random, users)
    item_table, genres, years = _items(random, items)
    centers = random.normal(size=(len(GENRES), FACTORS)) / np.sqrt(FACTORS)
    quality = random.normal(0, 0.35, items)
    popularity = -TAIL * np.log(np.argsort(np.argsort(-(quality + random.normal(0, 0.6, items)))) + 4.0)
    truth = Truth(
        user_factors=_float32(0.25 * tastes @ centers + random.normal(0, 0.35, (users, FACTORS))),
        item_factors=_float32(genres @ centers + random.normal(0, 0.45, (items, FACTORS))),
        genre_tastes=_float32(0.6 * tastes),
        item_genres=_float32(genres),
        year_tastes=_float32(year_tastes),
        item_years=_float32((years - years.mean()) / years.std()),
        user_levels=_float32(levels),
        item_quality=_float32(quality),
        popularity=_float32(popularity),
    )
    user, item = _choices(random, truth, counts)
    ratings = np.clip(np.rint(truth.stars(user, item) + random.normal(0, NOISE, len(user))), 1, 5).astype(np.float32)
    times = _times(random, counts)
    order = random.permutation(len(user))  # a log knows no order of users
    table = pa.table(
        {
            c.USER_ID: user[order] + 1,
            c.ITEM_ID: item[order] + 1,
            c.TIMESTAMP: times[order],
            c.RATING: ratings[order],
            c.LABEL: (ratings[order] > positive_above).astype(np.int8),
        }
    )
    made = assemble(table, user_table, item_table, labels="ratings", place=lambda row: f"generated row {row}")
    return Dataset(
        made.users, made.items, made.interactions, made.labels, made.rows_read, made.findings, truth.arrays()
    )


def _event_counts(random: np.random.Generator, users: int, items: int, events: int) -> np.ndarray:
    """Events of each user: a heavy tail above 20 (or half the mean, when that is less), exactly `events` in all."""
    most = max(1, int(items * 0.6))
    if events > users * most or events < users:
        raise SettingsError(
            f"synthetic data: {events} events do not fit {users} users and {items} items; choose between {users} (one per "
            f"user) and {users * most} (60 % of the items for each)",
            field="data.synthetic_events",
        )
    least = min(20, max(1, events // users // 2), most)
    shares = random.lognormal(0, 1, users)
    counts = np.minimum(least + np.floor(shares / shares.sum() * (events - least * users)).astype(np.int64), most)
    while (missing := events - int(counts.sum())) > 0:
        open_places = np.flatnonzero(counts < most)
        counts[random.choice(open_places, size=min(missing, len(open_places)), replace=False)] += 1
    return counts


def _users(random: np.random.Generator, users: int) -> tuple[pa.Table, np.ndarray, np.ndarray, np.ndarray]:
    """The users table, genre tastes [users, genres], rating levels [users] and year tastes [users]."""
    gender = random.choice(2, users, p=[0.71, 0.29])
    occupation = random.integers(0, len(OCCUPATIONS), users)
    age = np.clip(random.gamma(9, 3.8, users), 7, 75).astype(np.int64)
    shared = random.normal(0, 0.8, (len(OCCUPATIONS), len(GENRES)))
    by_gender = random.normal(0, 0.5, (2, len(GENRES)))
    tastes = shared[occupation] + by_gender[gender] + random.normal(0, 0.8, (users, len(GENRES)))
    table = pa.table(
        {
            c.USER_ID: pa.array(np.arange(1, users + 1)),
            "gender": pa.array(np.array(["M", "F"])[gender]),
            "age": pa.array(age),
            "occupation": pa.array(np.array(OCCUPATIONS)[occupation]),
            "zip_code": pa.array([f"{code:05d}" for code in random.integers(10_000, 99_999, users)]),
        }
    )
    return table, tastes, random.normal(0, 0.4, users), -0.25 * (age - 34) / 11 + random.normal(0, 0.15, users)


def _items(random: np.random.Generator, items: int) -> tuple[pa.Table, np.ndarray, np.ndarray]:
    """The items table, genre shares [items, genres] and years [items]."""
    weights = 1 / (np.arange(len(GENRES)) + 3.0)
    weights = weights[random.permutation(len(GENRES))]
    noise = np.log(weights / weights.sum()) + random.gumbel(size=(items, len(GENRES)))
    ranked = np.argsort(-noise, axis=1)[:, :3]
    count = random.choice([1, 2, 3], items, p=[0.45, 0.35, 0.2])
    chosen = [sorted(row[:size]) for row, size in zip(ranked, count, strict=True)]
    shares = np.zeros((items, len(GENRES)))
    for place in range(3):
        has = count > place
        shares[has, ranked[has, place]] = 1 / count[has]
    years = 1998 - np.minimum(random.gamma(1.1, 11, items).astype(np.int64), 75)
    table = pa.table(
        {
            c.ITEM_ID: pa.array(np.arange(1, items + 1)),
            c.TITLE: pa.array([f"Movie {place + 1} ({year})" for place, year in enumerate(years)]),
            c.TERMS: pa.array([[GENRES[place] for place in row] for row in chosen], STRINGS),
            c.YEAR: pa.array(years),
        }
    )
    return table, shares, years.astype(np.float64)


def _choices(random: np.random.Generator, truth: Truth, counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Which items each user takes, in no order: ([events] user rows ascending, [events] item rows), no item twice for a user."""
    users, items = len(counts), len(truth.popularity)
    by_count = np.argsort(counts, kind="stable")  # users of like counts go together, so that little is drawn in vain
    chosen = np.empty(int(counts.sum()), dtype=np.int64)
    starts = np.concatenate(([0], np.cumsum(counts)[:-1]))
    begin = 0
    while begin < users:
        pool = _pool_size(items, int(counts[by_count[begin]]))
        end = min(users, begin + max(1, 4_000_000 // pool))
        pool = _pool_size(items, int(counts[by_count[end - 1]]))
        rows = by_count[begin:end]
        candidates, weight = _pools(random, truth, len(rows), pool)
        score = CHOICE * _preference_of(truth, rows, candidates)
        score += weight
        noise = random.standard_exponential(score.shape, dtype=np.float32)
        score -= np.log(np.maximum(noise, np.finfo(np.float32).tiny))  # Gumbel noise
        most = int(counts[rows].max())
        best = np.argpartition(-score, most - 1, axis=1)[:, :most]
        best = np.take_along_axis(best, np.argsort(-np.take_along_axis(score, best, 1), axis=1), 1)
        picked = best if candidates is None else np.take_along_axis(candidates, best, 1)
        taken = np.arange(most) < counts[rows][:, None]
        chosen[(starts[rows][:, None] + np.arange(most))[taken]] = picked[taken]
        begin = end
    user = np.repeat(np.arange(users), counts)
    return user, chosen[np.lexsort((random.random(len(chosen), dtype=np.float32), user))]


def _pool_size(items: int, count: int) -> int:
    return items if items <= WHOLE_CATALOG else min(items, max(POOL, 4 * count))


def _pools(random: np.random.Generator, truth: Truth, rows: int, pool: int) -> tuple[np.ndarray | None, np.ndarray]:
    """Candidates [rows, pool] of each user (None: all items), and the log weight that they still carry.

    A pool is drawn by popularity in equal strata, so the draw has spent an item's popularity up to one stratum; what is above
    that it still carries. An item that fills several strata comes several times in a row, and only the first one counts.
    """
    items = len(truth.popularity)
    if pool >= items:
        return None, truth.popularity[None, :]
    cumulated = np.cumsum(np.exp(truth.popularity.astype(np.float64)))
    stratum = cumulated[-1] / pool
    points = (np.arange(pool) + random.random((rows, pool))) * stratum
    candidates = np.minimum(np.searchsorted(cumulated, points), items - 1)
    left = np.maximum(truth.popularity - np.float32(np.log(stratum)), 0)
    weight = left[candidates]
    weight[:, 1:][candidates[:, 1:] == candidates[:, :-1]] = -np.inf
    return candidates, weight


def _preference_of(truth: Truth, rows: np.ndarray, candidates: np.ndarray | None) -> np.ndarray:
    """`truth.preference` of each row's candidates, [rows, pool] float32; by one matrix product for the whole catalog."""
    users = np.hstack([truth.user_factors, truth.genre_tastes, truth.year_tastes[:, None]])[rows]
    items = np.hstack([truth.item_factors, truth.item_genres, truth.item_years[:, None]])
    if candidates is None:
        return users @ items.T
    return np.matmul(items[candidates], users[:, :, None])[:, :, 0]


def _times(random: np.random.Generator, counts: np.ndarray) -> np.ndarray:
    """Unix seconds of each event, ascending within each user: a few sessions, several events in one second."""
    user = np.repeat(np.arange(len(counts)), counts)
    first = np.zeros(len(user), dtype=bool)
    first[np.concatenate(([0], np.cumsum(counts)[:-1]))] = True
    kind = random.random(len(user))
    step = np.where(kind < 0.45, 0, random.integers(1, 60, len(user)))  # 45 % in the same second as the one before
    step = np.where(kind > 0.985, random.integers(3_600, 12 * 86_400, len(user)), step)  # a new session
    begins = START + random.integers(0, DAYS * 86_400, len(counts))
    elapsed = np.cumsum(np.where(first, 0, step))
    return begins[user] + elapsed - elapsed[first][user]


def _float32(array: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(array, dtype=np.float32)
