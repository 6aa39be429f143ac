"""Penalties for tokens that a row has had: of the prompt and answer, or of the answer alone."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from models.runner import SamplingParams

PROMPT = 1 << 24  #: added to a token's count when the prompt has it
Indices = NDArray[np.int64]


def is_penalized(params: SamplingParams) -> bool:
    penalties = params.repetition_penalty, params.presence_penalty, params.frequency_penalty
    return penalties != (1, 0, 0)


class Penalties:
    """A line for each penalized row, in tables that grow: how often it has had each token, and
    which tokens those are, so that only they are looked at. Beyond `_sizes` a line of `_seen` has
    zeros, which do no harm: token 0 is penalized by its own count, like any other."""

    def __init__(self, slots: int, vocabulary: int, device: torch.device) -> None:
        self._lines = np.zeros(slots, dtype=np.int64)
        self._sizes = np.zeros(0, dtype=np.int64)
        self._free: list[int] = []
        self._counts = torch.zeros(0, vocabulary, dtype=torch.int32, device=device)
        self._seen = torch.zeros(0, 64, dtype=torch.int64, device=device)
        self._factors = torch.zeros(0, 3, device=device)  # repetition, presence, frequency

    def admit(self, slot: int, prompt: Sequence[int], params: SamplingParams) -> None:
        if not self._free:
            self._add_lines()
        line = self._lines[slot] = self._free.pop()
        self._counts[line].zero_()
        self._seen[line].zero_()
        self._sizes[line] = 0
        factors = params.repetition_penalty, params.presence_penalty, params.frequency_penalty
        self._factors[line] = torch.tensor(factors)
        if params.repetition_penalty != 1:
            known = np.unique(np.asarray(prompt, dtype=np.int64))
            known = known[known < self._counts.shape[1]]
            tokens = torch.from_numpy(known).to(self._counts.device)
            self._make_room(len(known))
            self._counts[line].index_fill_(0, tokens, PROMPT)
            self._seen[line, : len(known)] = tokens
            self._sizes[line] = len(known)

    def release(self, slot: int) -> None:
        self._free.append(int(self._lines[slot]))

    def apply(self, logits: torch.Tensor, rows: Indices, slots: Indices) -> None:
        """Penalize, in place, those rows of logits [B, V], which are of these slots."""
        lines = self._on_device(self._lines[slots])[:, None]
        width = int(self._sizes[self._lines[slots]].max())
        seen = self._seen[lines[:, 0], :width]  # [P, W]
        counts = self._counts[lines, seen]
        repetition, presence, frequency = self._factors[lines].unbind(-1)  # [P, 1] each
        at = self._on_device(rows)[:, None]
        values = logits[at, seen]
        punished = torch.where(values > 0, values / repetition, values * repetition)
        values = torch.where(counts > 0, punished, values)
        answered = counts & (PROMPT - 1)
        logits[at, seen] = values - presence * (answered > 0) - frequency * answered

    def count(self, slots: Indices, tokens: torch.Tensor) -> None:
        """Each of these rows had one more token."""
        lines = self._lines[slots]
        self._make_room(int(self._sizes[lines].max()) + 1)
        on_device = self._on_device(lines)
        self._seen[on_device, self._on_device(self._sizes[lines])] = tokens
        self._sizes[lines] += 1
        self._counts[on_device, tokens] += 1

    def _on_device(self, indices: Indices) -> torch.Tensor:
        return torch.from_numpy(indices).to(self._counts.device)

    def _make_room(self, tokens: int) -> None:
        missing = tokens - self._seen.shape[1]
        if missing > 0:
            more = self._seen.new_zeros(len(self._seen), max(missing, self._seen.shape[1]))
            self._seen = torch.cat((self._seen, more), dim=1)

    def _add_lines(self) -> None:
        have = len(self._counts)
        more = max(4, have)
        self._counts = _longer(self._counts, more)
        self._seen = _longer(self._seen, more)
        self._factors = _longer(self._factors, more)
        self._sizes = np.concatenate((self._sizes, np.zeros(more, dtype=np.int64)))
        self._free.extend(range(have, have + more))


def _longer(table: torch.Tensor, more: int) -> torch.Tensor:
    return torch.cat((table, table.new_zeros(more, table.shape[1])))
