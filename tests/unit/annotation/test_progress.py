"""What the progress shows, on a terminal and without one."""

from __future__ import annotations

from io import StringIO

import pytest
from rich.console import Console

from penstock.annotation import progress
from penstock.annotation.progress import ProgressView, Rates, Sample
from penstock.errors import Unavailable
from penstock.schemas.batch import BatchResult, JobStatus, Progress, Usage


def done(rows: int) -> BatchResult:
    return BatchResult(
        request_id="batch_1",
        status=JobStatus.PROCESSING,
        progress=Progress(total=5_000, completed=rows - 1, failed=1),
        usage=Usage(prompt_tokens=9 * rows, completion_tokens=rows, total_tokens=10 * rows),
        eta_seconds=12.0,
    )


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
        view.scanned(5_000)
        view.sending(500)
        view.posted("batch_1")
        view.progressed(done(1_200))
        view.away(Unavailable(), 1.0)

    text = screen.getvalue()
    assert "Job batch_1 is stored: 5,000 rows." in text
    for part in ("1,200/5,000 rows", "rows/s", "tokens/s", "left", "Service away, trying again"):
        assert part in text


def test_a_log_file_sees_a_plain_line_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "LINE_EVERY", 0.0)
    screen = StringIO()
    with ProgressView(Console(file=screen, width=120)) as view:
        view.scanned(5_000)
        view.progressed(done(1_200))

    assert "1,200/5,000 rows, 0.0 rows/s" in screen.getvalue()
    assert "12 s left" in screen.getvalue()
    assert "\x1b" not in screen.getvalue()
