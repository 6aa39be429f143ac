"""The time that is left: right as often as it says where speeds drift, and tighter with time."""

from __future__ import annotations

import math
import random
from collections.abc import Callable

import pytest

from penstock.annotation.records import Interval
from penstock.annotation.run.forecast import MOST_POINTS, Forecast

ROWS = 20_000
POLL = 0.5  # seconds
LOOKS = (0.1, 0.25, 0.5, 0.75, 0.9)
Speed = Callable[[float], float]


def walking(chance: random.Random) -> Speed:
    """Drifts at random, with noise on top."""
    level = 0.0

    def speed(done: float) -> float:
        nonlocal level
        level += chance.gauss(0, 0.03)
        return math.exp(level + chance.gauss(0, 0.2))

    return speed


def wandering(chance: random.Random) -> Speed:
    """Leaves its mean and comes back."""
    level = 0.0

    def speed(done: float) -> float:
        nonlocal level
        level = 0.98 * level + chance.gauss(0, 0.06)
        return math.exp(level + chance.gauss(0, 0.1))

    return speed


def sloping(chance: random.Random) -> Speed:
    """Rows that get longer, or shorter, all along."""
    slope = chance.choice((-1, 1)) * chance.uniform(0.3, 1.0)
    return lambda done: math.exp(slope * done + chance.gauss(0, 0.2))


def waving(chance: random.Random) -> Speed:
    """Others come and go."""
    phase = chance.uniform(0, 2 * math.pi)
    return lambda done: math.exp(0.4 * math.sin(phase + 9 * done) + chance.gauss(0, 0.1))


def stepping(chance: random.Random) -> Speed:
    """Another job halves the speed, or ends, at a moment that nobody can foresee."""
    at, by = chance.uniform(0, 1), chance.choice((-0.7, 0.7))
    return lambda done: math.exp((by if done > at else 0.0) + chance.gauss(0, 0.2))


def bursting(chance: random.Random) -> Speed:
    """Rows end in batches, and now and then nothing does."""
    looks = 0

    def speed(done: float) -> float:
        nonlocal looks
        looks += 1
        return 8.0 if looks % 8 == 0 and chance.random() > 0.1 else 0.0

    return speed


def trial(speed: Speed, looks: int) -> dict[float, tuple[Interval | None, float]]:
    """One run of about so many looks: what was said after each share, and what was left."""
    forecast = Forecast()
    at = done = 0.0
    forecast.add(at, 0)
    said: dict[float, tuple[float, Interval | None]] = {}
    while done < ROWS:
        at += POLL
        done = min(ROWS, done + speed(done / ROWS) * ROWS / looks)
        forecast.add(at, int(done))
        share = max((each for each in LOOKS if done >= each * ROWS), default=None)
        if share is not None and share not in said and done < ROWS:
            said[share] = (at, forecast.left(at, ROWS))
    return {share: (interval, at - then) for share, (then, interval) in said.items()}


@pytest.mark.parametrize("kind", [walking, wandering, sloping, waving, stepping, bursting])
def test_the_end_lies_in_the_interval_in_70_of_100_trials(
    kind: Callable[[random.Random], Speed],
) -> None:
    chance = random.Random(1)
    held: list[bool] = []
    for _ in range(50):
        for interval, left in trial(kind(chance), looks=200).values():
            if interval is not None:
                held.append(interval.low <= left <= interval.high)

    assert len(held) > 200
    assert sum(held) >= 0.7 * len(held), sum(held) / len(held)


def test_at_every_stage_70_of_100_intervals_hold_whatever_the_speed_does() -> None:
    chance = random.Random(2)
    held: dict[float, list[bool]] = {share: [] for share in LOOKS}
    for kind in (walking, wandering, sloping, waving, stepping):
        for _ in range(16):
            for share, (interval, left) in trial(kind(chance), looks=400).items():
                if interval is not None:
                    held[share].append(interval.low <= left <= interval.high)

    assert all(sum(each) >= 0.7 * len(each) for each in held.values()), held


def test_the_interval_tightens() -> None:
    widths = {share: 0.0 for share in LOOKS}
    chance = random.Random(3)
    for _ in range(20):
        for share, (interval, _) in trial(walking(chance), looks=300).items():
            assert interval is not None
            widths[share] += interval.high - interval.low

    assert sorted(widths.values(), reverse=True) == list(widths.values())


def test_a_steady_run_is_known_well() -> None:
    interval, left = trial(lambda done: 1.0, looks=300)[0.75]
    assert interval is not None
    assert interval.middle == pytest.approx(left, rel=0.02)
    assert interval.high - interval.low < 0.3 * left


def test_waiting_in_the_queue_is_not_pace() -> None:
    forecast = Forecast()
    for second in range(600):
        forecast.add(second, 0)
    for second in range(600, 700):
        forecast.add(second, second - 600)

    left = forecast.left(699, 200)

    assert left is not None
    assert left.middle == pytest.approx(101, rel=0.05)


def test_a_run_that_is_picked_up_counts_from_there() -> None:
    forecast = Forecast()
    for second in range(100):
        forecast.add(5_000 + second, 90_000 + 10 * second)
    left = forecast.left(5_099, 100_000)
    assert left is not None
    assert left.middle == pytest.approx(901, rel=0.05)


def test_a_stall_moves_the_end_away() -> None:
    forecast = Forecast()
    for second in range(100):
        forecast.add(second, second)
    before, after = forecast.left(100, 200), forecast.left(130, 200)
    assert before is not None
    assert after is not None
    assert after.high > before.high + 30


def test_nothing_is_said_of_too_little_and_nothing_is_left_at_the_end() -> None:
    forecast = Forecast()
    assert forecast.left(0, 10) is None
    for second in range(20):
        forecast.add(second, 0)
    assert forecast.left(20, 10) is None
    for second in range(20, 41):
        forecast.add(second, second - 20)
    assert forecast.left(41, 20) == Interval(0.0, 0.0, 0.0)


def test_a_long_run_is_kept_in_few_points() -> None:
    forecast = Forecast()
    for look in range(50 * MOST_POINTS):
        forecast.add(look, look)
    assert len(forecast._points) <= MOST_POINTS
    assert forecast._points[-1] == (50 * MOST_POINTS - 1, 50 * MOST_POINTS - 1)
