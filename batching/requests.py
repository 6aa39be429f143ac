"""What goes into the engine and what comes out. Knows no queue and no database."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from models.runner import FinishReason, SamplingParams, TokenLogprob
from penstock.errors import PromptError


class EngineLane(StrEnum):
    """Which queue of the engine a request waits in."""

    BULK = "bulk"  #: jobs: waits for a full micro-batch
    EXPRESS = "express"  #: chats: admitted at once, in rows kept for them


@dataclass(frozen=True, slots=True)
class EngineConfig:
    """Limits of admission. Times in seconds, lengths in tokens. Those of a packed runner and of a
    padded one stand beside each other; the engine reads what its runner needs."""

    max_rows: int = 64  #: bulk rows at once
    express_rows: int = 8  #: beyond `max_rows`
    age_limit: float = 20.0  #: a bulk prompt that waited longer is not overtaken any more
    #: packed: tokens of one step
    step_tokens: int = 256
    #: packed: positions of the arena
    kv_tokens: int = 131_072
    #: packed: prompts of one group that begin with this many equal tokens share them; 0: none do
    min_prefix: int = 32
    #: packed: share of the arena that prefixes and earlier turns may keep when nobody uses them
    cache_share: float = 0.25
    #: padded: rows times the longest prompt of one micro-batch
    max_batch_tokens: int = 16_384
    #: padded: how long a bulk prompt waits for a fuller micro-batch
    max_wait: float = 0.5


@dataclass(frozen=True, slots=True)
class EngineRequest:
    """One prompt to run. `lane` is `bulk` or `express`; `alone`: nothing else runs meanwhile.

    `n` answers are drawn from one prompt; with `choices` (token ids of labels, none empty) they are
    scored and nothing is drawn. `deadline`: the engine's clock, when it ends as cancelled. `group`
    names the job: prompts of one group are looked at for a common beginning."""

    id: str
    lane: str
    prompt: tuple[int, ...]
    sampling: SamplingParams
    alone: bool = False
    n: int = 1
    choices: tuple[tuple[int, ...], ...] = ()
    deadline: float | None = None
    group: str | None = None


@dataclass(frozen=True, slots=True)
class Completion:
    """One answer to a prompt."""

    text: str
    finish: FinishReason
    tokens: int
    logprobs: tuple[TokenLogprob, ...] = ()


@dataclass(frozen=True, slots=True)
class EngineOutcome:
    """How a request ended. A result has `text` and `completions` (`n` of them, the first one's text
    is `text`), or `scores` and an empty text; an error has `error` and `message`; a cancelled one
    has neither, so that whoever cancelled it decides what that means. `completion_tokens` are of
    all completions; `ttft` in seconds, of the first."""

    id: str
    text: str | None
    finish: FinishReason
    prompt_tokens: int
    completion_tokens: int
    error: PromptError | None = None
    message: str | None = None
    ttft: float | None = None
    completions: tuple[Completion, ...] = ()
    scores: tuple[float, ...] = ()  #: log-likelihood of each choice
    choices: tuple[tuple[int, ...], ...] = ()  #: token ids of those that were scored
    cached_tokens: int = 0  #: of the prompt: not read, for their keys and values were there


@dataclass(frozen=True, slots=True)
class EngineStats:
    """A snapshot. Counts are since the start; shares and rates are of the last ten seconds, except
    the padded shares, which are of all tokens and keys read."""

    runner: str
    waiting: Mapping[str, int]  #: by lane
    running: Mapping[str, int]  #: by lane
    oldest_waiting: Mapping[str, float]  #: by lane: seconds that the oldest prompt has waited
    micro_batches: int  #: live ones of a padded runner
    row_limit: int  #: below `max_rows` for a while after the device ran out of memory
    steps: int
    engine_seconds: float  #: in steps
    tokens_in: int
    tokens_cached: int  #: of `tokens_in`: not read, for they were shared or kept
    tokens_out: int
    tokens_read: int
    tokens_needed: int
    padded_share: float  #: of the tokens that the linear layers computed
    padded_share_keys: float  #: of the keys that decoding rows read
    kv_tokens: int  #: positions of the arena; 0 for a padded runner
    kv_used: int  #: of them held by rows
    kv_cached: int  #: of them held by prefixes and earlier turns that nobody uses now
    rows_per_step: float
    tokens_per_s: float
    ttft: Mapping[str, float]  #: by lane: mean seconds to the first token
    time_per_token: float  #: mean seconds between the tokens of one row
    busy_share: float
    last_step_age: float  #: 0 when idle; grows while a step hangs, or when the loop is dead
    failures_in_a_row: int  #: requests ended by an engine error since the last good one
    draining: bool
