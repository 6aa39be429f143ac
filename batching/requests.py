"""What goes into the engine and what comes out. Knows no queue and no database."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from models.runner import FinishReason, SamplingParams
from penstock.errors import PromptError


class EngineLane(StrEnum):
    """Which queue of the engine a request waits in."""

    BULK = "bulk"  #: jobs: waits for a full micro-batch
    EXPRESS = "express"  #: chats: admitted at once, in rows kept for them


@dataclass(frozen=True, slots=True)
class EngineConfig:
    """Limits of admission. Times in seconds, lengths in tokens."""

    max_rows: int = 64
    max_batch_tokens: int = 16_384  #: rows times the longest prompt of one micro-batch
    max_wait: float = 0.5  #: how long a bulk prompt waits for a fuller micro-batch
    express_rows: int = 8  #: beyond `max_rows`
    age_limit: float = 20.0  #: a bulk prompt that waited longer is in the next micro-batch


@dataclass(frozen=True, slots=True)
class EngineRequest:
    """One prompt to run. `lane` is `bulk` or `express`; `alone`: nothing else runs meanwhile."""

    id: str
    lane: str
    prompt: tuple[int, ...]
    sampling: SamplingParams
    alone: bool = False


@dataclass(frozen=True, slots=True)
class EngineOutcome:
    """How a request ended. A result has `text`; an error has `error` and `message`; a cancelled one
    has neither, so that whoever cancelled it decides what that means. `ttft` in seconds."""

    id: str
    text: str | None
    finish: FinishReason
    prompt_tokens: int
    completion_tokens: int
    error: PromptError | None = None
    message: str | None = None
    ttft: float | None = None


@dataclass(frozen=True, slots=True)
class EngineStats:
    """A snapshot. Counts are since the start; shares and rates are of the last ten seconds, except
    `padded_share`, which is of all tokens read."""

    waiting: Mapping[str, int]  #: by lane
    running: Mapping[str, int]  #: by lane
    micro_batches: int
    row_limit: int  #: below `max_rows` for a while after the device ran out of memory
    steps: int
    tokens_in: int
    tokens_out: int
    tokens_read: int
    tokens_needed: int
    padded_share: float
    rows_per_step: float
    tokens_per_s: float
    busy_share: float
    last_step_age: float  #: 0 when idle; grows while a step hangs, or when the loop is dead
    failures_in_a_row: int  #: requests ended by an engine error since the last good one
    draining: bool
