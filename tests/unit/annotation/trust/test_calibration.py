"""Calibration errors beside scikit-learn's, and the table of what review buys."""

from __future__ import annotations

import random
from dataclasses import asdict

import pytest
from sklearn.calibration import calibration_curve
from sklearn.metrics import brier_score_loss, log_loss

from penstock.annotation.trust.calibration import Pair, calibration, review_curve


def pairs(rows: int, seed: int = 1, shift: float = 0.0) -> list[Pair]:
    """Right as often as said, less `shift`."""
    chance = random.Random(seed)
    sure = [chance.uniform(0.3, 0.99) for _ in range(rows)]
    return [(share, chance.random() < share - shift) for share in sure]


def test_bins_and_losses_are_those_of_scikit_learn() -> None:
    given = pairs(500, shift=0.2)
    sure, right = [p for p, _ in given], [int(r) for _, r in given]

    found = calibration(given)

    accuracy, confidence = calibration_curve(right, sure, n_bins=10)
    assert [each.accuracy for each in found.bins] == pytest.approx(list(accuracy))
    assert [each.confidence for each in found.bins] == pytest.approx(list(confidence))
    assert found.brier == pytest.approx(brier_score_loss(right, sure))
    assert found.nll == pytest.approx(log_loss(right, sure))
    assert found.ece == pytest.approx(
        sum(b.rows * abs(b.accuracy - b.confidence) for b in found.bins) / 500
    )
    assert found.ece == pytest.approx(0.2, abs=0.05)


def test_what_chance_alone_makes_is_told_beside_the_error() -> None:
    errors = [calibration(pairs(200, seed)) for seed in range(60)]

    assert sum(e.ece for e in errors) == pytest.approx(sum(e.noise for e in errors), rel=0.1)


def test_a_calibration_can_be_written_as_json() -> None:
    found = asdict(calibration([(1.0, True), (0.0, False), (0.05, True)]))
    assert found["bins"][0] == {
        "low": 0.0,
        "high": 0.1,
        "rows": 2,
        "confidence": 0.025,
        "accuracy": 0.5,
    }
    assert found["rows"] == 3
    assert calibration([]).rows == 0


def test_a_bin_tells_how_little_few_rows_say() -> None:
    (only,) = calibration([(0.95, True)] * 4).bins
    assert only.interval.low < 0.55
    assert only.interval.high == 1.0


def test_reviewing_the_least_certain_rows_raises_both_accuracies() -> None:
    given = [(0.9, True)] * 6 + [(0.6, True), (0.5, False), (0.4, False), (0.3, True)]

    points = review_curve(given, shares=(0.0, 0.3, 1.0))

    assert points[0] == (0.0, 0.8, 0.8)
    assert points[1] == pytest.approx((0.3, 1.0, 1.0))
    assert points[2] == (1.0, 1.0, 1.0)
    assert points[1].interval(10).low < 0.7
    assert review_curve([]) == ()


def test_the_order_of_equally_certain_rows_does_not_matter() -> None:
    given = [(0.5, True), (0.5, False)] * 5
    assert review_curve(given) == review_curve(given[::-1])
    assert {round(point.left, 9) for point in review_curve(given)} == {0.5}
