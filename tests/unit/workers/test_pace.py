"""How fast rows end."""

from __future__ import annotations

import pytest

from workers.pace import WINDOW, Pace


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def run(pace: Pace, clock: Clock, rows: int, seconds: float) -> None:
    for _ in range(rows):
        clock.now += seconds / rows
        pace.count()


def test_the_pace_is_that_of_the_last_window_and_unknown_before() -> None:
    clock = Clock()
    pace = Pace(clock)
    run(pace, clock, 50, WINDOW / 2)
    assert pace.rate == 0
    run(pace, clock, 60, WINDOW * 0.6)
    assert pace.rate == pytest.approx(100 / WINDOW, rel=0.02)
    run(pace, clock, 30, WINDOW * 3)
    assert pace.rate == pytest.approx(10 / WINDOW, rel=0.15)


def test_a_pause_slows_the_pace() -> None:
    clock = Clock()
    pace = Pace(clock)
    run(pace, clock, 200, WINDOW * 2)
    clock.now += 100 * WINDOW
    pace.count()
    assert pace.rate < 1 / WINDOW
