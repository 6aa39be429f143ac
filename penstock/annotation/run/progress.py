"""The progress of an annotation: a bar at a terminal, elsewhere a line every few seconds.

Knows what it is told, asks nothing.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from rich.console import Console, RenderableType
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.text import Text

from penstock.annotation.records import Live
from penstock.annotation.report.figures import between, plural, rate, share
from penstock.annotation.run.forecast import Forecast
from penstock.annotation.run.wording import around
from penstock.errors import PenstockError

WINDOW = 10.0  # seconds over which rates are taken
LINE_EVERY = 10.0  # seconds between two lines where there is no terminal


@dataclass(frozen=True, slots=True)
class Sample:
    """What was done at a moment. `at` in seconds since the run began."""

    at: float
    rows: int
    tokens: int


class Rates:
    """Rows and tokens per second over the last `WINDOW` seconds."""

    def __init__(self) -> None:
        self._samples: deque[Sample] = deque()

    def add(self, sample: Sample) -> tuple[float, float]:
        self._samples.append(sample)
        while len(self._samples) > 2 and self._samples[1].at <= sample.at - WINDOW:
            self._samples.popleft()
        first = self._samples[0]
        seconds = sample.at - first.at
        if seconds <= 0:
            return 0.0, 0.0
        return (sample.rows - first.rows) / seconds, (sample.tokens - first.tokens) / seconds


class _Bar(Progress):
    """A bar with lines of text below it."""

    lines: tuple[str, ...] = ()

    def get_renderables(self) -> Iterable[RenderableType]:
        yield self.make_tasks_table(self.tasks)
        for line in self.lines:
            yield Text(line, overflow="ellipsis", no_wrap=True)


class ProgressView:
    """A `Watcher` that shows what it is told. Use it in a `with` block."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._bar = _Bar(
            TextColumn("{task.description}"),
            BarColumn(bar_width=None),
            TextColumn("{task.completed:,.0f}/{task.total:,.0f} rows"),
            TimeElapsedColumn(),
            console=console,
            expand=True,
        )
        self._task = self._bar.add_task("Reading", total=0, visible=False)
        self._rates = Rates()
        self._forecast = Forecast()
        self._total = self._sent = 0
        self._following = False
        self._spoken = time.monotonic()

    def __enter__(self) -> Self:
        if self._console.is_terminal:
            self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        if self._console.is_terminal:
            self._bar.stop()

    def note(self, sentence: str) -> None:
        self._console.print(sentence, markup=False, highlight=False, soft_wrap=True)

    def reading(self, rows: int) -> None:
        """How many rows there will be is not known yet."""
        self._bar.update(self._task, total=rows, completed=rows, visible=True)
        self._now_and_then(f"Read {plural(rows, 'row')}")

    def scanned(self, rows: int) -> None:
        self._total = rows
        self._bar.reset(self._task, total=rows, visible=True, description="Sending")

    def sending(self, rows: int) -> None:
        self._sent = rows
        if not self._following:
            self._bar.update(self._task, completed=rows)
            self._now_and_then(f"Sent {rows:,} of {plural(self._total, 'row')}")

    def progressed(self, live: Live) -> None:
        if not self._following:
            self._following = True
            self._bar.reset(self._task, total=live.total)
        tokens = live.prompt_tokens + live.completion_tokens
        speed = self._rates.add(Sample(live.seconds, live.done, tokens))
        self._forecast.add(live.seconds, live.done)
        pace = ", ".join(self._pace(live, speed))
        quality = ", ".join(_quality(live))
        self._bar.lines = tuple(line for line in (pace, quality) if line)
        self._bar.update(
            self._task, completed=live.done, total=live.total, description="Annotating"
        )
        found = f", {quality}" if quality else ""
        self._now_and_then(f"{live.done:,}/{plural(live.total, 'row')}, {pace}{found}")

    def away(self, error: PenstockError, pause: float) -> None:
        """The service does not answer and is tried again after `pause` seconds."""
        self._bar.update(self._task, description="Service away, trying again")
        self._now_and_then("Service away, trying again")

    def _pace(self, live: Live, speed: tuple[float, float]) -> Iterator[str]:
        yield f"{rate(speed[0])} rows/s"
        yield f"{rate(speed[1])} tokens/s"
        left = self._forecast.left(live.seconds, live.total)
        if left is not None and live.done < live.total:
            yield f"{around(left)} left"
        if 0 < self._sent < live.total:
            yield f"{self._sent:,} rows sent"

    def _now_and_then(self, sentence: str) -> None:
        now = time.monotonic()
        if not self._console.is_terminal and now - self._spoken >= LINE_EVERY:
            self._spoken = now
            self.note(sentence)


def _quality(live: Live) -> Iterator[str]:
    """What is known of the answers."""
    if live.failed:
        yield f"{live.failed:,} failed"
    if live.review:
        yield f"{live.review:,} for review"
    if live.reused:
        yield f"{live.reused:,} answered as an equal row"
    if live.accuracy is not None:
        bounds = f"{share(live.accuracy.middle)} ({between(live.accuracy)})"
        yield f"accuracy {bounds} on {plural(live.gold, 'gold row')}"
