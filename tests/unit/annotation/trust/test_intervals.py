"""Wilson's interval, beside published figures."""

from __future__ import annotations

import random

import pytest

from penstock.annotation.records import Interval
from penstock.annotation.trust.intervals import anytime, wilson


@pytest.mark.parametrize(
    ("right", "of", "low", "high"),
    [
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_the_bounds_are_those_of_newcombe_1998(
    right: int, of: int, low: float, high: float
) -> None:
    found = wilson(right, of)

    assert (found.low, found.high) == pytest.approx((low, high), abs=5e-5)
    assert found.middle == right / of


def test_bounds_stay_within_0_and_1_and_around_the_share() -> None:
    for of in (1, 7, 400):
        for right in range(of + 1):
            found = wilson(right, of)
            assert 0 <= found.low <= found.middle <= found.high <= 1


def test_nothing_counted_says_nothing() -> None:
    assert wilson(0, 0) == Interval(0.0, 0.5, 1.0)


def test_a_lower_level_is_narrower() -> None:
    wide, narrow = wilson(30, 50), wilson(30, 50, level=0.8)
    assert wide.low < narrow.low < narrow.high < wide.high


def test_bounds_for_every_look_hold_at_all_of_them_where_those_for_one_do_not() -> None:
    chance = random.Random(1)
    passed = {"wilson": 0, "anytime": 0}
    for _ in range(120):
        right, open_ = 0, {"wilson": wilson, "anytime": anytime}
        for of in range(1, 501):
            right += chance.random() < 0.8
            if of % 5 or right >= 0.8 * of:
                continue
            for name in [n for n, bounds in open_.items() if bounds(right, of).high < 0.8]:
                del open_[name]
                passed[name] += 1

    assert passed["anytime"] <= 0.05 * 120
    assert passed["wilson"] > 0.12 * 120


def test_bounds_for_every_look_are_wider_and_tighten() -> None:
    for right, of in ((0, 20), (15, 20), (20, 20), (800, 1_000)):
        one, every = wilson(right, of), anytime(right, of)
        assert 0 <= every.low <= one.low
        assert one.high <= every.high <= 1
    assert anytime(0, 0) == Interval(0.0, 0.5, 1.0)
    assert anytime(8_000, 10_000).high - 0.8 < 0.02
