"""Rates are of the last seconds, totals of all time."""

from __future__ import annotations

import pytest

from batching.meter import Meter


def test_rates_forget_what_is_long_past() -> None:
    meter = Meter(started=0.0)
    for second in range(100):
        meter.record(second + 0.1, second + 0.6, rows=4, read=8, needed=6)
    rates = meter.rates(99.9)
    assert rates.tokens_per_s == pytest.approx(40 / 9.9)
    assert rates.rows_per_step == 4
    assert rates.busy_share == pytest.approx(5 / 9.9)
    assert meter.rates(200.0).tokens_per_s == 0
    assert meter.totals.steps == 100
    assert meter.totals.padded_share == pytest.approx(0.25)


def test_the_first_seconds_are_not_diluted() -> None:
    meter = Meter(started=50.0)
    meter.record(50.0, 50.5, rows=10, read=10, needed=10)
    assert meter.rates(51.0).tokens_per_s == pytest.approx(10.0)
