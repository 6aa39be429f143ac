"""The progress of an annotation on the terminal: a bar with rows/s, tokens/s and time left.

Without a terminal, a plain line every few seconds. Knows what it is told, asks nothing.
"""

from __future__ import annotations

import time
from collections import deque
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from penstock.annotation.plan import counted
from penstock.errors import PenstockError
from penstock.schemas.batch import BatchResult

WINDOW = 10.0  # seconds over which rates are taken
LINE_EVERY = 10.0  # seconds between two lines where there is no terminal


@dataclass(frozen=True, slots=True)
class Sample:
    """What was done at a moment. `at` in seconds of the monotonic clock."""

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


class ProgressView:
    """A `Watcher` that shows what it is told. Use it in a `with` block."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=None),
            TextColumn("{task.completed:,.0f}/{task.total:,.0f} rows"),
            TextColumn("{task.fields[rates]}"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(compact=True, elapsed_when_finished=False),
            console=console,
            expand=True,
        )
        self._task = self._bar.add_task("Reading", total=0, rates="", visible=False)
        self._rates = Rates()
        self._total = 0
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
        self._bar.stop()

    def note(self, sentence: str) -> None:
        self._console.print(sentence, markup=False, highlight=False, soft_wrap=True)

    def scanned(self, rows: int) -> None:
        self._total = rows
        self._bar.update(self._task, total=rows, visible=True, description="Sending")

    def sending(self, rows: int) -> None:
        self._bar.update(self._task, completed=rows)

    def posted(self, request_id: str) -> None:
        self.note(f"Job {request_id} is stored: {counted(self._total)}.")
        self._bar.reset(self._task, total=self._total, description="Annotating")

    def progressed(self, progress: BatchResult) -> None:
        done = progress.progress.completed + progress.progress.failed
        now = time.monotonic()
        rows, tokens = self._rates.add(Sample(now, done, progress.usage.total_tokens))
        rates = f"{rows:,.1f} rows/s  {tokens:,.0f} tokens/s"
        self._bar.update(self._task, completed=done, rates=rates, description="Annotating")
        if not self._console.is_terminal and now - self._spoken >= LINE_EVERY:
            self._spoken = now
            left = f", {progress.eta_seconds:,.0f} s left" if progress.eta_seconds else ""
            self.note(f"{done:,}/{counted(self._total)}, {rates}{left}")

    def away(self, error: PenstockError, pause: float) -> None:
        """The service does not answer and is tried again after `pause` seconds."""
        self._bar.update(self._task, description="Service away, trying again")
