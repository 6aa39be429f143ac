"""Figures from samples whose answer is known."""

from __future__ import annotations

import pytest

from penstock.loadtest.report import duration, histogram, timeline
from penstock.loadtest.samples import Heard, Sample
from penstock.loadtest.summary import distribution, percentile, summarize


def sample(due: float, ended: float, error: str | None = None, **more: object) -> Sample:
    known: dict[str, object] = {
        "first": None,
        "last": None,
        "prompt_tokens": 10,
        "output_tokens": 5,
        "estimated": False,
    }
    return Sample(due=due, ended=ended, error=error, **{**known, **more})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("values", "share", "expected"),
    [
        ([1.0], 0.99, 1.0),
        ([1.0, 2.0], 0.5, 1.5),
        ([15.0, 20.0, 35.0, 40.0, 50.0], 0.4, 29.0),  # the textbook's example
        (list(map(float, range(101))), 0.9, 90.0),
        (list(map(float, range(1, 1001))), 0.99, 990.01),
    ],
)
def test_percentiles_of_known_data(values: list[float], share: float, expected: float) -> None:
    assert percentile(values, share) == pytest.approx(expected)


def test_a_distribution_is_of_what_is_known() -> None:
    found = distribution([None, 3.0, 1.0, 2.0])

    assert found is not None
    assert (found.count, found.mean, found.p50, found.max) == (3, 2.0, 2.0, 3.0)
    assert distribution([None]) is None


def test_latency_counts_from_when_a_request_was_due() -> None:
    waited = sample(1.0, 5.0, first=4.0, last=4.8)

    assert waited.latency == 4.0
    assert waited.time_to_first == 3.0
    assert waited.time_per_token == pytest.approx(0.2)
    assert sample(0, 1, first=0.5, last=0.5, output_tokens=1).time_per_token is None


def test_rates_are_over_the_whole_run_and_of_what_was_answered() -> None:
    found = summarize(
        [sample(10, 11), sample(10, 14), sample(11, 20, "timeout"), sample(11, 12, "timeout")],
        late=3,
    )

    assert (found.requests, found.answered, found.errors) == (4, 2, {"timeout": 2})
    assert (found.seconds, found.requests_per_s) == (10, 0.2)
    assert (found.output_tokens, found.output_tokens_per_s) == (10, 1.0)
    assert found.latency is not None
    assert (found.latency.count, found.latency.p50, found.late) == (2, 2.5, 3)


def test_a_run_without_requests_has_no_figures() -> None:
    found = summarize([], interrupted=True)

    assert (found.requests, found.requests_per_s, found.latency) == (0, 0.0, None)


def test_pieces_stand_for_tokens_where_nothing_was_counted() -> None:
    guessed, counted, silent = Heard(0), Heard(0), Heard(0)
    for heard in (guessed, counted):
        heard.piece()
        heard.piece()
    counted.usage(5, 9)

    assert (guessed.sample().output_tokens, guessed.sample().estimated) == (2, True)
    assert (counted.sample().output_tokens, counted.sample().estimated) == (9, False)
    assert (silent.sample().output_tokens, silent.sample().estimated) == (0, False)


def test_charts_show_where_the_answers_are() -> None:
    rows = histogram([0.01] * 3 + [1.0])
    line = timeline([0.0, 0.0, 9.0])

    assert len(rows) == 10
    assert rows[0].endswith("█ 3")
    assert rows[-1].endswith("▍ 1")
    assert (line[0], line[1], line[-1]) == ("█", "▁", "▄")
    assert histogram([0.5]) == [f"{duration(0.5):>12}  {'█' * 40} 1"]
    assert (duration(0.0123), duration(12)) == ("12.3 ms", "12.00 s")
