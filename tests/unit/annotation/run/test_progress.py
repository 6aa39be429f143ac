"""What the progress shows, on a terminal and without one."""

from __future__ import annotations

from io import StringIO

import pytest
from rich.console import Console

from penstock.annotation.records import Interval, Live
from penstock.annotation.run import progress
from penstock.annotation.run.progress import ProgressView, Rates, Sample
from penstock.annotation.run.wording import around, rough
from penstock.annotation.trust.intervals import wilson
from penstock.errors import Unavailable


def live(done: int, total: int = 5_000) -> Live:
    return Live(
        total=total,
        done=done,
        failed=1,
        review=done // 10,
        prompt_tokens=9 * done,
        completion_tokens=done,
        gold=100,
        right=86,
        accuracy=wilson(86, 100),
        seconds=done / 50,
    )


def told(view: ProgressView) -> None:
    view.reading(1_000)
    view.scanned(5_000)
    view.sending(2_000)
    for done in range(0, 2_000, 50):
        view.progressed(live(done))


def test_rates_are_those_of_the_last_seconds() -> None:
    rates = Rates()
    assert rates.add(Sample(100.0, 500, 5_000)) == (0.0, 0.0)
    assert rates.add(Sample(102.0, 700, 9_000)) == (100.0, 2_000.0)

    for second in range(3, 40):
        latest = rates.add(Sample(100.0 + second, 700 + second, 9_000 + 10 * second))

    assert latest == pytest.approx((1.0, 10.0))


def test_a_terminal_sees_a_bar_and_when_the_service_is_away() -> None:
    screen = StringIO()
    with ProgressView(Console(file=screen, force_terminal=True, width=120)) as view:
        told(view)
        view.note("A note.")
        view.away(Unavailable(), 1.0)

    text = screen.getvalue()
    assert "A note." in text
    for part in (
        "1,950/5,000 rows",
        "50 rows/s, 500 tokens/s, 61 s (",
        " left, 2,000 rows sent",
        "1 failed, 195 for review, accuracy 86.0% (77.9",
        "on 100 gold rows",
        "Service away, trying again",
    ):
        assert part in text


def test_a_log_file_sees_a_plain_line_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "LINE_EVERY", 0.0)
    screen = StringIO()
    with ProgressView(Console(file=screen, width=120)) as view:
        told(view)

    lines = screen.getvalue().splitlines()
    assert lines[:2] == ["Read 1,000 rows", "Sent 2,000 of 5,000 rows"]
    assert lines[-1].startswith("1,950/5,000 rows, 50 rows/s, 500 tokens/s, 61 s (")
    assert "1 failed, 195 for review, accuracy 86.0%" in lines[-1]
    assert "\x1b" not in screen.getvalue()


def test_lines_come_no_more_often_than_they_should() -> None:
    screen = StringIO()
    with ProgressView(Console(file=screen, width=120)) as view:
        told(view)
    assert screen.getvalue() == ""


def test_times_are_said_with_the_digits_that_are_known() -> None:
    times = (0.25, 45, 100, 3_000, 12_345, 40_000, 200_000, 2_000_000)
    expected = ["0.2 s", "45 s", "2 min", "50 min", "3.4 h", "11 h", "2.3 d", "23 d"]
    assert [rough(seconds) for seconds in times] == expected
    assert around(Interval(50, 60, 75)) == "60 s (50 s to 75 s)"
