"""Numbers as they are read."""

from __future__ import annotations

import pytest

from penstock.annotation.report.figures import duration, energy, of, rate, share, size


@pytest.mark.parametrize(
    ("part", "text"),
    [(0, "0.0%"), (1, "100.0%"), (0.1234, "12.3%"), (0.00001, "<0.1%"), (0.99999, ">99.9%")],
)
def test_a_share_says_all_or_none_only_where_it_is(part: float, text: str) -> None:
    assert share(part) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 ms"),
        (0.000084, "0.084 ms"),
        (0.25, "250 ms"),
        (7.4, "7.4 s"),
        (59.7, "1 min 0 s"),
        (4_350, "1 h 12 min"),
        (360_000, "100 h 0 min"),
    ],
)
def test_times_are_in_the_unit_that_fits(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_sizes_rates_and_energy() -> None:
    assert [size(count) for count in (0, 1_023, 1_536, 3 * 2**30)] == [
        "0 B",
        "1023 B",
        "1.5 KiB",
        "3.0 GiB",
    ]
    assert [rate(value) for value in (0.01234, 12.34, 1_234.5)] == ["0.0123", "12.3", "1,234"]
    assert [energy(joules) for joules in (350, 7_200, 7.2e6)] == ["350 J", "2 Wh", "2.00 kWh"]
    assert of(1, 0) == "\N{EN DASH}"
