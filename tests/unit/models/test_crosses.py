"""Crosses against numbers worked out by hand; every operation is total."""

from __future__ import annotations

import math

import pytest
import torch

from data_exchange_center.errors import SpecError
from data_exchange_center.feature_spec import Cross, Feature
from offline.models import crosses
from offline.models.columns import Columns


def cross(op: str, *inputs: str, **parameters: float) -> Feature:
    return Feature(
        name="made", entity="cross", type="numeric", cross=Cross(op=op, inputs=list(inputs), parameters=parameters)
    )


def made(feature: Feature, *values: torch.Tensor) -> torch.Tensor:
    """One cross alone from scalars [*] and lists [*, n]; the values of a cross over an axis are lists but for the last ones."""
    crosses.check(feature)
    assert feature.cross is not None
    named = dict(zip(feature.cross.inputs, values, strict=True))
    lists = (
        dict(list(named.items())[: {"axis_share": 2}.get(feature.cross.op, 3)]) if "axis" in feature.cross.op else {}
    )
    scalars = Columns()
    for name in named.keys() - lists.keys():
        scalars.add([name], named[name].unsqueeze(-1))
    return crosses.Group((feature,)).compute(scalars, lists)[..., 0]


def compute(op: str, *values: list[float] | float, **parameters: float) -> float:
    names = [f"v{number}" for number in range(len(values))]
    return float(made(cross(op, *names, **parameters), *(torch.tensor(value) for value in values)))


def test_a_rate_is_smoothed_towards_its_prior() -> None:
    assert compute("rate", 3.0, 4.0, 0.5, strength=6) == pytest.approx((3 + 6 * 0.5) / 10)


def test_a_rate_of_the_last_events_counts_at_most_those() -> None:
    assert compute("rate", 4.0, 100.0, 0.0, strength=1, limit=5) == pytest.approx(4 / 6)


def test_a_rate_without_events_is_its_prior() -> None:
    assert compute("rate", 0.0, 0.0, 0.7, strength=5) == pytest.approx(0.7)


def test_elapsed_seconds_are_subtracted_exactly_at_the_size_of_timestamps() -> None:
    assert compute("elapsed", 1_700_000_001, 1_700_000_000) == pytest.approx(math.log1p(1))


def test_a_missing_timestamp_is_as_long_ago_as_can_be() -> None:
    assert compute("elapsed", 1_700_000_000, 0) == pytest.approx(math.log1p(crosses.LONGEST), rel=1e-6)


def test_a_timestamp_in_the_future_counts_as_now() -> None:
    assert compute("elapsed", 1000, 2000) == 0.0


@pytest.mark.parametrize(("now", "position"), [(1800, math.log1p(3)), (1801 + 1, 0.0)])
def test_a_session_is_open_until_the_gap(now: int, position: float) -> None:
    assert compute("open_session", now, 1, 3.0, gap=1800) == pytest.approx(position)


def test_an_axis_rate_averages_the_users_rates_at_the_items_places() -> None:
    # rates (sum + 1 * prior) / (count + 1): (2 + .5) / 4, unused, (0 + .5) / 1
    expected = ((2 + 0.5) / 4 + 0.5) / 2
    assert compute("axis_rate", [1.0, 0.0, 1.0], [2.0, 9.0, 0.0], [3.0, 9.0, 0.0], 0.5, strength=1) == pytest.approx(
        expected
    )


def test_the_best_and_worst_place_ignore_places_that_the_item_does_not_have() -> None:
    values = ([1.0, 0.0, 1.0], [1.0, 9.0, 3.0], [3.0, 9.0, 3.0], 0.0)
    assert compute("axis_rate_max", *values, strength=1) == pytest.approx(0.75)
    assert compute("axis_rate_min", *values, strength=1) == pytest.approx(0.25)


@pytest.mark.parametrize("op", ["axis_rate", "axis_rate_max", "axis_rate_min"])
def test_an_item_without_places_gets_the_prior(op: str) -> None:
    assert compute(op, [0.0, 0.0], [1.0, 2.0], [3.0, 4.0], 0.4, strength=2) == pytest.approx(0.4)


def test_the_spread_is_a_standard_deviation() -> None:
    values = torch.tensor([1.0, 4.0, 4.0])
    made = compute("spread", float((values**2).sum()), float(values.sum()), 3.0)
    assert made == pytest.approx(float(values.std(correction=0)), rel=1e-5)


def test_both_sides_broadcast() -> None:
    shares = made(
        cross("axis_share", "places", "counts", "events"),
        torch.eye(2).repeat(3, 1),
        torch.tensor([[3.0, 1.0]]),
        torch.tensor([3.0]),
    )
    assert shares.shape == (6,)
    assert shares[:2].tolist() == pytest.approx([0.75, 0.25])


@pytest.mark.parametrize(
    ("feature", "says"),
    [
        (cross("nothing", "a"), "unknown operation 'nothing'"),
        (cross("rate", "a"), "takes 2 or 3 inputs, not 1"),
        (cross("open_session", "a", "b", "c"), "needs the parameter 'gap'"),
    ],
)
def test_a_wrong_cross_is_named(feature: Feature, says: str) -> None:
    with pytest.raises(SpecError, match=says) as error:
        crosses.check(feature)
    assert error.value.field == "made"
