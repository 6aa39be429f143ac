"""What a step sampled, on its way from the device to the host. Knows no text and decides nothing.

It may be read while the next step runs: rows that have left by then, or whose slot another row has
now, are taken out when it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

from models.packed.rows import Step
from models.runner import RowStep, StepOutput
from models.sampling import Logprobs, Sampled

Slots = NDArray[np.int64]
Kept = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Pending:
    """`births` [slots] counts the rows that each slot has had, as it was when the step began."""

    step: Step
    births: Slots
    sampled: Sampled | None
    sums: tuple[torch.Tensor, ...]  # of each scored row, [choices]
    arrived: torch.cuda.Event | None

    def wait(self) -> None:
        if self.arrived is not None:
            self.arrived.synchronize()

    def kept(self, slots: Sequence[int] | Slots, births: Slots) -> Kept:
        """Which of these slots still have the row that they had."""
        index = np.asarray(slots, dtype=np.int64)
        same: Kept = self.births[index] == births[index]
        return same


def send(
    step: Step, births: Slots, sampled: Sampled | None, sums: Sequence[torch.Tensor]
) -> Pending:
    """Start the copies, behind the work that is queued on the device."""
    found = None if sampled is None else _sampled_to_host(sampled)
    there = tuple(_to_host(one) for one in sums)
    arrived = None
    if step.layout.tokens.device.type == "cuda":
        arrived = torch.cuda.current_stream().record_event()
    return Pending(step, births.copy(), found, there, arrived)


def only(sampled: Sampled, kept: Kept) -> Sampled:
    """What was sampled for some of the rows."""
    if kept.all():
        return sampled
    rows = torch.from_numpy(kept)
    logprobs = sampled.logprobs
    if logprobs is not None:
        mine = rows[logprobs.rows]
        logprobs = Logprobs(
            (rows.cumsum(0) - 1)[logprobs.rows[mine]],
            logprobs.chosen[mine],
            logprobs.top[mine],
            logprobs.top_tokens[mine],
        )
    parts = (sampled.tokens, sampled.ended, sampled.complete, sampled.broken)
    tokens, ended, complete, broken = (part[rows] for part in parts)
    return Sampled(tokens, ended, complete, broken, logprobs)


def combined(outputs: Sequence[StepOutput], *, pending: bool) -> StepOutput:
    """One output of those that were read in one call. A row speaks once."""
    rows: dict[str, RowStep] = {}
    for step in (step for output in outputs for step in output.rows):
        before = rows.get(step.id)
        rows[step.id] = replace(step, text=before.text + step.text) if before else step
    return StepOutput(
        rows=tuple(rows.values()),
        started=tuple(id for output in outputs for id in output.started),
        sampled=sum(output.sampled for output in outputs),
        tokens_read=sum(output.tokens_read for output in outputs),
        tokens_needed=sum(output.tokens_needed for output in outputs),
        keys_read=sum(output.keys_read for output in outputs),
        keys_needed=sum(output.keys_needed for output in outputs),
        pending=pending,
    )


def _sampled_to_host(sampled: Sampled) -> Sampled:
    logprobs = sampled.logprobs
    if logprobs is not None:
        parts = (logprobs.rows, logprobs.chosen, logprobs.top, logprobs.top_tokens)
        logprobs = Logprobs(*map(_to_host, parts))
    main = (sampled.tokens, sampled.ended, sampled.complete, sampled.broken)
    tokens, ended, complete, broken = map(_to_host, main)
    return Sampled(tokens, ended, complete, broken, logprobs)


def _to_host(tensor: torch.Tensor) -> torch.Tensor:
    if tensor.device.type == "cpu":
        return tensor
    # Only a copy to pinned memory goes on while the host does something else.
    host = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
    return host.copy_(tensor, non_blocking=True)
