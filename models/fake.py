"""A runner without a model or torch: it repeats the prompt's first words, one word a step.

Deterministic, and held to the same rules as the real one. Product code: `--model fake`.
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass

from models.runner import FinishReason, ModelInfo, Row, RowStep, StepOutput, StepPlan

ROLE, CONTENT = 256, 257  #: token ids beside the 256 bytes: what follows is a role, a content
WORDS = 8  #: of the prompt, at most, in an answer
CRASH = "<<crash>>"


class FakeCodec:
    """One token for each UTF-8 byte, and one in front of each role and content."""

    def encode_chat(self, messages: Sequence[tuple[str, str]]) -> tuple[int, ...]:
        tokens: list[int] = []
        for role, content in messages:
            tokens += [ROLE, *_bytes(role), CONTENT, *_bytes(content)]
        return (*tokens, ROLE, *b"assistant", CONTENT)


@dataclass(slots=True)
class _Row:
    pieces: list[str]
    finish: FinishReason
    given: int = 0

    def step(self, id: str) -> RowStep:
        text = self.pieces[self.given]
        self.given += 1
        return RowStep(id, text, self.finish if self.given == len(self.pieces) else None)


class FakeRunner:
    """Answers `echo: ` and the last message's first words; with a seed and a temperature the seed
    orders them. `tokens_per_second` is the speed of one row, 0 as fast as it goes. `dangerous`: a
    prompt with `<<crash>>` kills the process, to try what that does."""

    def __init__(
        self, context: int = 4096, tokens_per_second: float = 0.0, *, dangerous: bool = False
    ) -> None:
        self._info = ModelInfo("fake", 0, 0, "none", "none", context, "fake")
        self._delay = 1 / tokens_per_second if tokens_per_second > 0 else 0.0
        self._dangerous = dangerous
        self._codec = FakeCodec()
        self._live: dict[int, dict[str, _Row]] = {}

    @property
    def info(self) -> ModelInfo:
        return self._info

    @property
    def codec(self) -> FakeCodec:
        return self._codec

    def step(self, plan: StepPlan) -> StepOutput:
        if self._delay:
            time.sleep(self._delay)
        if plan.admit:
            self._live[plan.micro_batch] = {row.id: self._prefill(row) for row in plan.admit}
            lengths = [len(row.prompt) for row in plan.admit]
            read, needed = len(lengths) * max(lengths), sum(lengths)
        rows = self._live[plan.micro_batch]
        for id in plan.drop:
            del rows[id]
        if not plan.admit:
            read = needed = len(rows)
        steps = tuple([row.step(id) for id, row in rows.items()])
        for step in steps:
            if step.finish is not None:
                del rows[step.id]
        if not rows:
            self.forget(plan.micro_batch)
        return StepOutput(steps, read, needed)

    def forget(self, micro_batch: int) -> None:
        self._live.pop(micro_batch, None)

    def _prefill(self, row: Row) -> _Row:
        sampling = row.sampling
        prompt = _last_message(row.prompt)
        if self._dangerous and CRASH in prompt:
            os._exit(1)
        words = prompt.split()[:WORDS]
        if sampling.seed is not None and sampling.temperature > 0:
            random.Random(sampling.seed).shuffle(words)  # noqa: S311
        pieces = ["echo:", *(f" {word}" for word in words)]
        most = max(1, min(sampling.max_tokens, self._info.context - len(row.prompt)))
        finish = FinishReason.STOP if len(pieces) <= most else FinishReason.LENGTH
        return _cut(pieces[:most], finish, sampling.stop)


def _cut(pieces: list[str], finish: FinishReason, stops: Sequence[str]) -> _Row:
    """End before the first stop text. A real row too reads the tokens of a stop text."""
    text = "".join(pieces)
    found = [at for at in (text.find(stop) for stop in stops) if at >= 0]
    if not found:
        return _Row(pieces, finish)
    kept, left = [], min(found)
    for piece in pieces:
        kept.append(piece[:left])
        left -= len(piece)
        if left < 0:
            break
    return _Row(kept, FinishReason.STOP)


def _last_message(prompt: Sequence[int]) -> str:
    """The content before the opening of the answer; all of a prompt that was not a chat."""
    contents = [at for at, token in enumerate(prompt) if token == CONTENT]
    end = len(prompt)
    if len(contents) > 1:
        end = len(prompt) - 1 - list(reversed(prompt)).index(ROLE)
    start = contents[-2] + 1 if len(contents) > 1 else 0
    body = bytes(token for token in prompt[start:end] if token < ROLE)
    return body.decode("utf-8", "replace")


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "replace")
