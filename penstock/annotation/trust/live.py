"""How far a run is, counted row by row as answers come. Knows verdicts, no job."""

from __future__ import annotations

from penstock.annotation.records import Kind, Live, Verdict
from penstock.annotation.trust.intervals import wilson
from penstock.annotation.trust.right import missing, right


class Tally:
    """Counts in constant memory. A row that failed has no part in the accuracy."""

    def __init__(self, kind: Kind = Kind.LABELS) -> None:
        self._kind = kind
        self._done = self._failed = self._review = self._reused = 0
        self._prompt_tokens = self._completion_tokens = 0
        self._gold = self._right = 0

    def add(self, verdict: Verdict, gold: object = None) -> None:
        """A row is done; `gold` is its gold cell, empty or None where it has none."""
        self._done += 1
        self._prompt_tokens += verdict.prompt_tokens
        self._completion_tokens += verdict.completion_tokens
        asked = [vote for vote in verdict.votes if vote.prompt_tokens or vote.reused]
        self._reused += bool(asked) and all(vote.reused for vote in asked)
        self._review += verdict.needs_review
        if verdict.value is None:
            self._failed += 1
        elif not missing(gold):
            self._gold += 1
            self._right += right(verdict.value, gold, self._kind)

    def live(self, total: int, seconds: float) -> Live:
        """The look of this moment; `total` rows there are, `seconds` it took so far."""
        return Live(
            total=total,
            done=self._done,
            judged=self._done,
            failed=self._failed,
            review=self._review,
            reused=self._reused,
            prompt_tokens=self._prompt_tokens,
            completion_tokens=self._completion_tokens,
            gold=self._gold,
            right=self._right,
            accuracy=wilson(self._right, self._gold) if self._gold else None,
            seconds=seconds,
        )
