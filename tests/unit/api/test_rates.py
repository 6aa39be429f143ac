"""The arithmetic of sliding windows, and the names of Redis."""

from __future__ import annotations

import pytest

from api.rates import Window, duration, limits_url

EMPTY = Window(0, 0, 0, 0)
#: Halfway through a minute in which 4 came, after one with 6.
HALFWAY = Window(6, 30, 4, 90)


def test_the_minute_before_counts_by_what_is_left_of_it() -> None:
    assert (EMPTY.used, HALFWAY.used) == (0, 7)
    assert (EMPTY.reset, HALFWAY.reset, Window(6, 30, 0, 90).reset) == (0, 90, 30)


@pytest.mark.parametrize(
    ("limit", "cost", "seconds"),
    [
        (8, 1, 0),
        (7, 1, 10),  # one of the six is forgotten in ten seconds
        (5, 1, 30),  # all six: then the four of this minute are left
        (4, 1, 45),  # and a fourth of them is forgotten in a fourth of a minute
        (4, 4, 90),
    ],
)
def test_what_does_not_fit_is_told_when_it_will(limit: int, cost: int, seconds: float) -> None:
    assert HALFWAY.wait(limit, cost) == pytest.approx(seconds)


def test_times_are_written_as_openai_does() -> None:
    written = [duration(seconds) for seconds in (0, 0.02, 1, 1.5, 60, 360, 75.25)]

    assert written == ["0ms", "20ms", "1s", "1.5s", "1m0s", "6m0s", "1m15.25s"]


def test_a_brokers_url_is_one_for_limits() -> None:
    assert limits_url("redis://:pw@host:6379/2") == "async+redis://:pw@host:6379/2"
    assert limits_url("rediss://host") == "async+rediss://host"
    assert limits_url("redis+socket:///run/r.sock?virtual_host=3") == (
        "async+redis+unix:///run/r.sock?db=3"
    )
