"""A request in the engine: who waits for it, its answers, and the outcome that they make. Knows no
scheduler and no thread."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from batching.requests import Completion, EngineOutcome, EngineRequest
from batching.sequence import Sequence
from models.runner import FinishReason
from penstock.errors import PromptError

OnDone = Callable[[EngineOutcome], None]
OnToken = Callable[[str], None]


@dataclass(slots=True, eq=False)
class Ticket:
    """`sequences` are its answers, one for each branch."""

    request: EngineRequest
    on_done: OnDone
    on_token: OnToken | None = None
    sequences: list[Sequence] = field(default_factory=list)
    over: bool = False

    @property
    def is_answered(self) -> bool:
        return all(sequence.last is not None for sequence in self.sequences)

    def result(self) -> EngineOutcome:
        """Of a request whose answers all came."""
        ended = [(row.text, row.last) for row in self.sequences if row.last is not None]
        completions = tuple(
            Completion(text, last.finish or FinishReason.STOP, last.tokens, last.logprobs)
            for text, last in ended
        )
        scores = ended[0][1].scores
        return EngineOutcome(
            id=self.request.id,
            text=completions[0].text,
            finish=completions[0].finish,
            prompt_tokens=len(self.request.prompt),
            completion_tokens=self._tokens(),
            ttft=self._ttft(),
            completions=() if scores else completions,
            scores=scores,
            choices=self.request.choices,
            cached_tokens=self.sequences[0].cached,
        )

    def failure(self, error: PromptError | None, message: str | None) -> EngineOutcome:
        """Of a request that ends without a result; without an error it was cancelled."""
        return EngineOutcome(
            id=self.request.id,
            text=None,
            finish=FinishReason.CANCELLED if error is None else FinishReason.ERROR,
            prompt_tokens=len(self.request.prompt),
            completion_tokens=self._tokens(),
            error=error,
            message=message,
            ttft=self._ttft(),
        )

    def _tokens(self) -> int:
        return sum(row.last.tokens for row in self.sequences if row.last is not None)

    def _ttft(self) -> float | None:
        started = [row.started - row.arrived for row in self.sequences if row.started is not None]
        return min(started, default=None)
