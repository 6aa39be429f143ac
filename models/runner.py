"""The seam between who decides (`batching/`) and who computes (`models/`). No torch here.

A runner owns the key/value memory of the rows it was given and nothing else: it picks no row, keeps
no queue and knows no time. Calls come from one thread.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol


class FinishReason(StrEnum):
    """Why a row ended. The first two are results, the others are outcomes without one."""

    STOP = "stop"  #: an end-of-sequence token or a stop text
    LENGTH = "length"  #: max_tokens, or the model's context
    CANCELLED = "cancelled"
    ERROR = "error"


@dataclass(frozen=True, slots=True)
class SamplingParams:
    """How one row's tokens are chosen. `temperature` 0 is greedy; `top_k` 0 keeps all."""

    max_tokens: int = 200
    temperature: float = 0.7
    top_p: float = 0.95
    top_k: int = 0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    seed: int | None = None
    stop: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Row:
    """One prompt, ready to run. `prompt` holds token ids, at least one."""

    id: str
    prompt: tuple[int, ...]
    sampling: SamplingParams


@dataclass(frozen=True, slots=True)
class StepPlan:
    """One forward pass: the prefill of a new micro-batch, or one decode step of a live one.

    `micro_batch` names the micro-batch; `admit` is not empty for a prefill; `drop` are rows of it
    that were cancelled since its last step.
    """

    micro_batch: int
    admit: tuple[Row, ...] = ()
    drop: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class RowStep:
    """What one step brought for one row. `text` is new text that is safe to show: no half
    character, no stop text. `finish` is set on the row's last step."""

    id: str
    text: str
    finish: FinishReason | None = None


@dataclass(frozen=True, slots=True)
class StepOutput:
    """One entry per row that ran. `tokens_read` are the positions the step computed, pads
    included; `tokens_needed` those of them that are not pads."""

    rows: tuple[RowStep, ...]
    tokens_read: int = 0
    tokens_needed: int = 0


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """What is loaded. Bytes and counts; `context` is the most tokens of a row, prompt included."""

    name: str
    parameters: int
    memory_bytes: int
    device: str
    quantization: str
    context: int
    runner: str
    notes: tuple[str, ...] = field(default=())


class Codec(Protocol):
    """Text to tokens. Safe to call from several threads."""

    def encode_chat(self, messages: Sequence[tuple[str, str]]) -> tuple[int, ...]:
        """Token ids of (role, content) turns, with the model's template and the opening of the
        assistant's turn."""
        ...


class Runner(Protocol):
    """Computes steps. Raises `penstock.errors.OutOfMemory` when the device cannot hold one; the
    micro-batch it was for is then gone from the runner."""

    @property
    def info(self) -> ModelInfo: ...

    @property
    def codec(self) -> Codec: ...

    def step(self, plan: StepPlan) -> StepOutput:
        """Run one step. Rows that finish leave the runner by themselves."""
        ...

    def forget(self, micro_batch: int) -> None:
        """Free a micro-batch, whatever state it is in. Idempotent."""
        ...
