"""Rates are of the last seconds, totals of all time."""

from __future__ import annotations

import pytest

from batching.meter import Meter
from batching.requests import EngineLane
from models.runner import StepOutput


def output(sampled: int, read: int, needed: int) -> StepOutput:
    return StepOutput((), (), sampled, read, needed, 2 * read, read)


def test_rates_forget_what_is_long_past() -> None:
    meter = Meter(started=0.0)
    for second in range(100):
        meter.record(second + 0.1, second + 0.6, 4, output(4, read=8, needed=6))
    rates = meter.rates(99.9)
    assert rates.tokens_per_s == pytest.approx(40 / 9.9)
    assert rates.rows_per_step == 4
    assert rates.busy_share == pytest.approx(5 / 9.9)
    assert meter.rates(200.0).tokens_per_s == 0
    assert meter.totals.steps == 100
    assert meter.totals.seconds == pytest.approx(50)
    assert meter.totals.padded_share == pytest.approx(0.25)
    assert meter.totals.padded_share_keys == pytest.approx(0.5)


def test_the_first_seconds_are_not_diluted() -> None:
    meter = Meter(started=50.0)
    meter.record(50.0, 50.5, 10, output(10, read=10, needed=10))
    assert meter.rates(51.0).tokens_per_s == pytest.approx(10.0)


def test_times_to_the_first_token_are_by_lane_and_those_between_tokens_by_token() -> None:
    meter = Meter(started=0.0)
    meter.began(1.0, EngineLane.EXPRESS, 0.2)
    meter.began(2.0, EngineLane.EXPRESS, 0.4)
    meter.ended(2.0, 3.0, 30)
    meter.ended(2.5, 1.0, 10)
    rates = meter.rates(3.0)
    assert rates.ttft == {"bulk": 0.0, "express": pytest.approx(0.3)}
    assert rates.time_per_token == pytest.approx(0.1)
