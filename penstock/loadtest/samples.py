"""One request as it went: when it was due, and what was heard of its answer. Knows no HTTP."""

from __future__ import annotations

import time
from dataclasses import dataclass

clock = time.monotonic  #: seconds


@dataclass(frozen=True, slots=True)
class Sample:
    """Times by `clock`. `first` and `last`: of the answer's text; None where it came in one piece.

    Latencies count from `due`, so that a server that stalls cannot hide behind requests that
    would have been sent meanwhile.
    """

    due: float
    ended: float
    first: float | None
    last: float | None
    prompt_tokens: int
    output_tokens: int
    estimated: bool  #: the server did not count; each piece of the answer stands for a token
    error: str | None

    @property
    def latency(self) -> float:
        return self.ended - self.due

    @property
    def time_to_first(self) -> float | None:
        return None if self.first is None else self.first - self.due

    @property
    def time_per_token(self) -> float | None:
        """Between one token and the next."""
        if self.first is None or self.last is None or self.output_tokens < 2:
            return None
        return (self.last - self.first) / (self.output_tokens - 1)


class Heard:
    """What comes in of one answer."""

    def __init__(self, due: float) -> None:
        self._due = due
        self._first: float | None = None
        self._last: float | None = None
        self._pieces = 0
        self._prompt_tokens = 0
        self._output_tokens: int | None = None

    def piece(self) -> None:
        """A piece of text has come."""
        self._last = clock()
        self._first = self._last if self._first is None else self._first
        self._pieces += 1

    def whole(self) -> None:
        """It came in one piece, so that nothing is known of its first token."""
        self._first = self._last = None

    def usage(self, prompt_tokens: int, output_tokens: int) -> None:
        """What the server has counted."""
        self._prompt_tokens, self._output_tokens = prompt_tokens, output_tokens

    def sample(self, error: str | None = None) -> Sample:
        """All that was heard, at the end."""
        counted = self._output_tokens
        return Sample(
            due=self._due,
            ended=clock(),
            first=self._first,
            last=self._last,
            prompt_tokens=self._prompt_tokens,
            output_tokens=self._pieces if counted is None else counted,
            estimated=counted is None and self._pieces > 0,
            error=error,
        )
