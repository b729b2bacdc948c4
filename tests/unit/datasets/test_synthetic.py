"""Generated data has the asked sizes, repeats by seed, looks like MovieLens, and its preference structure can be found in it."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp
from sklearn.metrics import roc_auc_score

from data_exchange_center.errors import SettingsError
from offline.datasets import synthetic
from offline.datasets.canonical import Dataset
from offline.datasets.synthetic import Truth, generate


@pytest.fixture(scope="module")
def made() -> Dataset:
    return generate(users=500, items=600, events=30_000, seed=3)


@pytest.fixture(scope="module")
def truth(made: Dataset) -> Truth:
    return Truth(**made.truth)


def events(made: Dataset) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """0-based users and items, timestamps and labels."""
    table = made.interactions
    names = ("user_id", "item_id", "timestamp", "label")
    user, item, time, label = (table[name].to_numpy() for name in names)
    return user - 1, item - 1, time, label


@pytest.mark.parametrize(
    ("users", "items", "count"), [(20, 20, 200), (300, 50, 9000), (7, 9000, 3000), (1000, 40, 1000)]
)
def test_sizes_are_exactly_those_asked_for(users: int, items: int, count: int) -> None:
    dataset = generate(users, items, count, seed=0)
    assert (dataset.users.num_rows, dataset.items.num_rows, dataset.interactions.num_rows) == (users, items, count)
    assert dataset.findings == ()
    pairs = set(zip(*(dataset.interactions[name].to_pylist() for name in ("user_id", "item_id")), strict=True))
    assert len(pairs) == count  # nobody rates an item twice
    assert len({user for user, _ in pairs}) == users


@pytest.mark.parametrize("count", [19, 20 * 12 + 1])
def test_sizes_that_do_not_fit_together_are_refused(count: int) -> None:
    with pytest.raises(SettingsError, match="choose between 20 .* and 240 "):
        generate(users=20, items=20, events=count, seed=0)


def test_the_same_seed_gives_the_same_data_and_another_one_other_data() -> None:
    first, again, other = (generate(50, 60, 1500, seed) for seed in (1, 1, 2))
    for name in ("users", "items", "interactions"):
        assert getattr(first, name).equals(getattr(again, name))
    assert all(np.array_equal(first.truth[name], again.truth[name]) for name in first.truth)
    assert not first.interactions.equals(other.interactions)


def test_it_is_shaped_like_movielens(made: Dataset) -> None:
    user, item, time, label = events(made)
    assert 0.45 < label.mean() < 0.7
    assert set(made.interactions["rating"].to_pylist()) == {1, 2, 3, 4, 5}
    per_user, per_item = np.bincount(user), np.bincount(item, minlength=600)
    assert per_user.min() >= 20
    assert per_user.max() > 3 * np.median(per_user)
    assert np.sort(per_item)[-60:].sum() > 0.3 * per_item.sum()  # a tenth of the items gets a third of the events
    order = np.lexsort((time, user))
    same = (np.diff(time[order]) == 0) & (np.diff(user[order]) == 0)
    shares = np.append(same, False) | np.insert(same, 0, False)
    assert 0.5 < shares.mean() < 0.85  # rows that share a second with another one of the user
    assert not (np.diff(user) >= 0).all()  # a log is not sorted by user
    assert set(made.users.column_names) == {"user_id", "gender", "age", "occupation", "zip_code"}
    assert all(1 <= len(genres) <= 3 for genres in made.items["genres"].to_pylist())
    assert all(
        title.endswith(f"({year})")
        for title, year in zip(*(made.items[n].to_pylist() for n in ("title", "year")), strict=True)
    )


def test_the_truth_ranks_what_was_shown(made: Dataset, truth: Truth) -> None:
    user, item, _, label = events(made)
    like = truth.like_probability(user, item)
    assert roc_auc_score(label, like) > 0.8
    assert abs(like.mean() - label.mean()) < 0.01  # and its probabilities are calibrated
    for low in (0.2, 0.5, 0.8):
        inside = (like >= low - 0.05) & (like < low + 0.05)
        assert abs(label[inside].mean() - low) < 0.05


@pytest.mark.parametrize("whole_catalog", [4096, 0], ids=["whole catalog", "sampled pools"])
def test_the_truth_finds_what_was_chosen_and_collaborative_filtering_nearly_so(
    whole_catalog: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(synthetic, "WHOLE_CATALOG", whole_catalog)
    monkeypatch.setattr(synthetic, "POOL", 128)
    made = generate(users=500, items=600, events=30_000, seed=3)
    truth = Truth(**made.truth)
    user, item, _, _ = events(made)
    held = np.random.default_rng(0).random(len(user)) < 0.2
    seen = sp.csr_matrix((np.ones((~held).sum()), (user[~held], item[~held])), shape=(500, 600))
    relevant = sp.csr_matrix((np.ones(held.sum()), (user[held], item[held])), shape=(500, 600)).toarray() > 0

    def recall(scores: np.ndarray) -> float:
        scores = np.where(seen.toarray() > 0, -np.inf, scores)
        top = np.argpartition(-scores, 50, axis=1)[:, :50]
        return float(np.take_along_axis(relevant, top, 1).sum() / relevant.sum())

    popularity = recall(np.tile(np.asarray(seen.sum(axis=0)), (500, 1)))
    gram = (seen.T @ seen).toarray() + 200 * np.eye(600)
    inverse = np.linalg.inv(gram)
    weights = inverse / -np.diag(inverse)
    np.fill_diagonal(weights, 0)
    ease = recall(seen @ weights)
    best = recall(truth.choice(np.arange(500)[:, None], np.arange(600)))
    assert popularity + 0.08 < ease < best
    assert best > popularity + 0.2


def test_pools_draw_items_as_often_as_the_whole_catalog_does(monkeypatch: pytest.MonkeyPatch) -> None:
    """With no preferences, both ways of choosing follow popularity alone."""
    monkeypatch.setattr(synthetic, "CHOICE", 0.0)
    monkeypatch.setattr(synthetic, "POOL", 64)
    counts = {}
    for whole in (4096, 0):
        monkeypatch.setattr(synthetic, "WHOLE_CATALOG", whole)
        made = generate(users=4000, items=500, events=16_000, seed=5)
        counts[whole] = np.bincount(made.interactions["item_id"].to_numpy() - 1, minlength=500)
    weight = np.exp(made.truth["popularity"].astype(float))
    groups = np.array_split(np.argsort(-weight), 5)
    for group in groups:
        whole, pools = counts[4096][group].sum(), counts[0][group].sum()
        assert abs(whole - pools) < 0.12 * whole + 60


def test_side_features_tell_about_tastes(made: Dataset, truth: Truth) -> None:
    occupations = np.array(made.users["occupation"].to_pylist())
    total = truth.genre_tastes.var(axis=0).sum()
    within = sum(
        truth.genre_tastes[occupations == one].var(axis=0).sum() * (occupations == one).mean()
        for one in set(occupations)
    )
    assert within < 0.8 * total
    ages = made.users["age"].to_numpy()
    assert np.corrcoef(ages, truth.year_tastes)[0, 1] < -0.7
