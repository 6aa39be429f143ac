"""A packed runner without a model or torch: it repeats the prompt's first words, one word a step.

Deterministic, and held to the same rules as the real ones. Product code: `--model fake`.
"""

from __future__ import annotations

import json
import os
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from models.runner import (
    Constraint,
    FinishReason,
    ModelInfo,
    Purpose,
    Row,
    RowStep,
    SamplingParams,
    StepOutput,
    StepPlan,
    TokenLogprob,
)
from penstock.errors import InvalidRequest, OutOfMemory

ROLE, CONTENT = 256, 257  #: token ids beside the 256 bytes: what follows is a role, a content
WORDS = 8  #: of the prompt, at most, in an answer
CRASH, MEMORY = "<<crash>>", "<<memory>>"
COMPANY = 4  #: rows that run beside one with `MEMORY` before there is not enough of it
MAX_ROWS, KV_TOKENS = 4_096, 1 << 20


class FakeCodec:
    """One token for each UTF-8 byte, and one in front of each role and content."""

    def encode_chat(self, messages: Sequence[tuple[str, str]]) -> tuple[int, ...]:
        tokens: list[int] = []
        for role, content in messages:
            tokens += [ROLE, *_bytes(role), CONTENT, *_bytes(content)]
        return (*tokens, ROLE, *b"assistant", CONTENT)

    def encode_chats(
        self, chats: Sequence[Sequence[tuple[str, str]]]
    ) -> list[tuple[int, ...] | InvalidRequest]:
        return [self.encode_chat(chat) for chat in chats]

    def encode_text(self, text: str) -> tuple[int, ...]:
        return tuple(_bytes(text))

    def encode_answer(self, text: str) -> tuple[int, ...]:
        if not text:
            raise InvalidRequest("There are no tokens for an empty text.", param="choices")
        return tuple(_bytes(text))


@dataclass(slots=True)
class _Row:
    """`read`: tokens of the prompt that were; `pieces`: the answer, of which `given` were said."""

    row: Row
    read: int
    pieces: list[str] = field(default_factory=list)
    finish: FinishReason = FinishReason.STOP
    given: int = 0

    def next(self) -> RowStep | None:
        """One more word. None when there is nothing to say of it yet."""
        text = self.pieces[self.given]
        self.given += 1
        if self.given < len(self.pieces):
            return RowStep(self.row.id, text) if self.row.stream and text else None
        if not self.row.stream:
            text = "".join(self.pieces)
        return RowStep(self.row.id, text, self.finish, self.given, self._logprobs())

    def _logprobs(self) -> tuple[TokenLogprob, ...]:
        most = self.row.sampling.logprobs
        if most is None:
            return ()
        scored = [(piece, -float(len(piece))) for piece in self.pieces]
        return tuple(TokenLogprob(piece, p, ((piece, p),)[:most]) for piece, p in scored)


class FakeRunner:
    """Answers `echo: ` and the last message's first words; with a temperature the seed and the
    branch order them. Constrained, it answers the first choice, or something short that fits;
    the likelier of two labels to score is the shorter one. `tokens_per_second` is the speed of one
    row, 0 as fast as it goes. `dangerous`, to try what that does: a prompt with `<<crash>>` kills
    the process, and one with `<<memory>>` takes the room of many rows."""

    def __init__(
        self, context: int = 4096, tokens_per_second: float = 0.0, *, dangerous: bool = False
    ) -> None:
        self._info = ModelInfo(
            "fake", 0, 0, "none", "none", context, "fake", max_rows=MAX_ROWS, kv_tokens=KV_TOKENS
        )
        self._delay = 1 / tokens_per_second if tokens_per_second > 0 else 0.0
        self._dangerous = dangerous
        self._codec = FakeCodec()
        self._reading: dict[str, _Row] = {}
        self._decoding: dict[str, _Row] = {}

    @property
    def info(self) -> ModelInfo:
        return self._info

    @property
    def codec(self) -> FakeCodec:
        return self._codec

    def step(self, plan: StepPlan) -> StepOutput:
        if self._delay:
            time.sleep(self._delay)
        for id in plan.drop:
            self._reading.pop(id, None)
            self._decoding.pop(id, None)
        for row, place in zip(plan.admit, plan.places, strict=True):
            self._reading[row.id] = self._admit(row, place.known)
        decoding = self._decoding
        if plan.decode is not None:
            decoding = {id: row for id, row in decoding.items() if id in plan.decode}
        keys = sum(row.read + row.given for row in decoding.values())
        tokens = len(decoding) + sum(chunk.tokens for chunk in plan.chunks)
        speaking = list(decoding.values())
        steps: list[RowStep] = []
        started: list[str] = []
        for chunk in plan.chunks:
            self._read(chunk.id, chunk.tokens, steps, started, speaking)
        for step in [step for step in (row.next() for row in speaking) if step is not None]:
            steps.append(step)
            if step.finish is not None:
                del self._decoding[step.id]
        return StepOutput(tuple(steps), tuple(started), len(speaking), tokens, tokens, keys, keys)

    def forget(self, micro_batch: int) -> None:
        self._reading.clear()
        self._decoding.clear()

    def _read(
        self, id: str, tokens: int, steps: list[RowStep], started: list[str], speaking: list[_Row]
    ) -> None:
        """Read on in a prompt; at its end the row is over, or speaks in this step."""
        row = self._reading[id]
        row.read += tokens
        if row.read < len(row.row.prompt):
            return
        del self._reading[id]
        if row.row.purpose is Purpose.PREFIX:
            steps.append(RowStep(id, finish=FinishReason.STOP))
            return
        started.append(id)
        if row.row.purpose is Purpose.SCORE:
            scores = tuple(-float(len(choice)) for choice in row.row.choices)
            steps.append(RowStep(id, finish=FinishReason.STOP, scores=scores))
            return
        self._decoding[id] = row
        speaking.append(row)

    def _admit(self, row: Row, known: int) -> _Row:
        if row.purpose is not Purpose.GENERATE:
            return _Row(row, known)
        prompt = _last_message(row.prompt)
        if self._dangerous and CRASH in prompt:
            os._exit(1)
        if self._dangerous and MEMORY in prompt and len(self._decoding) > COMPANY:
            raise OutOfMemory("the fake model has no room for it beside the others")
        pieces, whole = _answer(prompt, row.sampling, row.branch)
        most = max(1, min(row.sampling.max_tokens, self._info.context - len(row.prompt)))
        finish = FinishReason.STOP if whole and len(pieces) <= most else FinishReason.LENGTH
        kept, stopped = _cut(pieces[:most], row.sampling.stop)
        return _Row(row, known, kept, FinishReason.STOP if stopped else finish)


def _answer(prompt: str, sampling: SamplingParams, branch: int) -> tuple[list[str], bool]:
    """The words of an answer, and whether it is a whole one."""
    if sampling.constraint is not None:
        text, whole = _fitting(sampling.constraint)
        first, *rest = text.split(" ")
        return [first, *(f" {word}" for word in rest)], whole
    words = prompt.split()[:WORDS]
    if sampling.temperature > 0 and (sampling.seed is not None or branch):
        random.Random(f"{sampling.seed}/{branch}").shuffle(words)  # noqa: S311
    return ["echo:", *(f" {word}" for word in words)], True


def _fitting(constraint: Constraint) -> tuple[str, bool]:
    """A text that meets a constraint: the first choice, or something short."""
    if constraint.kind == "choices":
        return json.loads(constraint.value)[0], True
    # Only who needs it loads the grammar's library.
    from models.constraints import example

    return example(constraint)


def _cut(pieces: list[str], stops: Sequence[str]) -> tuple[list[str], bool]:
    """End before the first stop text. A real row too reads the tokens of a stop text."""
    if not stops:
        return pieces, False
    text = "".join(pieces)
    found = [at for at in (text.find(stop) for stop in stops) if at >= 0]
    if not found:
        return pieces, False
    kept, left = [], min(found)
    for piece in pieces:
        kept.append(piece[:left])
        left -= len(piece)
        if left < 0:
            break
    return kept, True


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
