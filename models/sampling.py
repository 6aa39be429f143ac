"""The next token of each row, by that row's own parameters. Knows no text and no model.

A row's token depends on its own logits and random numbers alone, whatever its neighbors are.
Parameters lie in tensors by slot. What a slot needs is known on the host, so that rows that ask
for nothing cost nothing, and the device is waited for only where a constraint needs its token.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from models.drawing import DrawParams, Likeliest, broken_rows, draw, likeliest, uniform
from models.grammar import Grammars
from models.penalties import Penalties, is_penalized
from models.runner import Row
from penstock.errors import InvalidRequest

Slots = NDArray[np.int64]

#: What a slot needs beyond the likeliest token.
DRAWN, CUT, PENALIZED, CONSTRAINED, LOGPROBS = 1, 2, 4, 8, 16
#: Rows without a seed: the same row draws the same numbers again when it is run again.
_SALT = secrets.token_hex(16)


@dataclass(frozen=True, slots=True)
class Logprobs:
    """Natural logarithms of the softmax of the model's logits. `rows`: which of the B rows."""

    rows: torch.Tensor  # [L] int64
    chosen: torch.Tensor  # [L] float32
    top: torch.Tensor  # [L, K] float32, best first; K is what the greediest row asks for
    top_tokens: torch.Tensor  # [L, K] int64


@dataclass(frozen=True, slots=True)
class Sampled:
    """What was chosen for B rows, on the device. `complete`: the constraint is satisfied and
    nothing can follow. `broken`: the model's output was not a number; the token means nothing."""

    tokens: torch.Tensor  # [B] int64
    ended: torch.Tensor  # [B] bool: an end token, the row's limit, or complete
    complete: torch.Tensor  # [B] bool
    broken: torch.Tensor  # [B] bool
    logprobs: Logprobs | None


class Sampler:
    """The parameters of all slots. A slot is a place for one row; the caller hands them out."""

    def __init__(
        self,
        slots: int,
        vocabulary: int,
        device: torch.device,
        ends: frozenset[int],
        grammars: Grammars | None,
        likeliest: Likeliest = likeliest,
    ) -> None:
        self._likeliest = likeliest
        self._device = device
        self._grammars = grammars
        self._penalties = Penalties(slots, vocabulary, device)
        self._needs = np.zeros(slots, dtype=np.int64)
        self._most_logprobs = np.zeros(slots, dtype=np.int64)
        # Temperature, top-p, min-p; then key, top-k, limit, tokens so far.
        self._floats = torch.zeros(slots, 3, device=device)
        self._ints = torch.zeros(slots, 4, dtype=torch.int64, device=device)
        self._is_end = torch.zeros(vocabulary, dtype=torch.bool)
        self._is_end[[token for token in ends if token < vocabulary]] = True
        self._is_end = self._is_end.to(device)

    def admit(self, slot: int, row: Row, limit: int) -> None:
        """Take a row that may have `limit` tokens. Raises InvalidRequest for a constraint that
        cannot be met."""
        self.release([slot])
        p = row.sampling
        needs = DRAWN * (p.temperature > 0) | LOGPROBS * (p.logprobs is not None)
        if p.temperature > 0 and (p.top_k > 0 or p.top_p < 1 or p.min_p > 0):
            needs |= CUT
        if p.constraint is not None:
            if self._grammars is None:
                raise InvalidRequest("This model's answers cannot be constrained.")
            self._grammars.admit(slot, p.constraint)
            needs |= CONSTRAINED
        if is_penalized(p):
            self._penalties.admit(slot, row.prompt, p)
            needs |= PENALIZED
        self._needs[slot] = needs
        self._most_logprobs[slot] = p.logprobs or 0
        # Without waiting for what the device does meanwhile.
        floats = torch.tensor((p.temperature, p.top_p, p.min_p))
        ints = torch.tensor((_key(row), p.top_k, limit, 0))
        self._floats[slot].copy_(floats, non_blocking=True)
        self._ints[slot].copy_(ints, non_blocking=True)

    def release(self, slots: Sequence[int]) -> None:
        """Forget the rows of these slots. Idempotent."""
        for slot in slots:
            if self._needs[slot] & CONSTRAINED and self._grammars is not None:
                self._grammars.release(slot)
            if self._needs[slot] & PENALIZED:
                self._penalties.release(slot)
            self._needs[slot] = 0

    def choose(
        self, logits: torch.Tensor, slots: torch.Tensor, order: Slots | None = None
    ) -> Sampled:
        """The next tokens from logits [B, V] of the rows in `slots` [B], any of them in any order.

        `order`: the same slots on the host, which spares waiting for them. Raises
        FloatingPointError when an output is not a number, on the CPU; elsewhere `broken` says it.
        """
        if order is None:
            order = slots.cpu().numpy()
        needs = self._needs[order]
        some = int(np.bitwise_or.reduce(needs, initial=0))
        adjusted = (
            self._adjust(logits, needs, order) if some & (PENALIZED | CONSTRAINED) else logits
        )
        tokens = self._likeliest(adjusted)  # [B]
        broken = broken_rows(adjusted, tokens)
        if some & DRAWN:
            self._draw(adjusted, tokens, slots, needs)
        ended, complete = self._advance(tokens, slots, needs, order)
        logprobs = self._logprobs(logits, tokens, needs, order) if some & LOGPROBS else None
        return Sampled(tokens, ended, complete, broken, logprobs)

    def wants_likeliest(self, order: Slots) -> bool:
        """Whether the rows in these slots want their likeliest tokens and nothing else."""
        return not self._needs[order].any()

    def take(self, tokens: torch.Tensor, slots: torch.Tensor, order: Slots) -> Sampled:
        """The likeliest tokens [B] of rows that want nothing else, as if they were chosen here."""
        ended, complete = self._advance(tokens, slots, self._needs[order], order)
        return Sampled(tokens, ended, complete, torch.zeros_like(ended), None)

    def _adjust(self, logits: torch.Tensor, needs: Slots, order: Slots) -> torch.Tensor:
        """A copy of the logits, penalized and masked."""
        logits = logits.to(torch.float32, copy=True)
        rows = np.flatnonzero(needs & PENALIZED)
        if len(rows):
            self._penalties.apply(logits, rows, order[rows])
        rows = np.flatnonzero(needs & CONSTRAINED)
        if len(rows) and self._grammars is not None:
            index = self._index(rows)
            allowed = self._grammars.allowed(order[rows].tolist(), self._device)
            logits[index] = logits[index].masked_fill(~allowed, -torch.inf)
        return logits

    def _draw(
        self, logits: torch.Tensor, tokens: torch.Tensor, slots: torch.Tensor, needs: Slots
    ) -> None:
        """Put drawn tokens in the place of the likeliest ones, for the rows with a temperature."""
        rows = np.flatnonzero(needs & DRAWN)
        everything = len(rows) == len(needs)
        index = None if everything else self._index(rows)
        if index is not None:
            logits, slots = logits[index], slots[index]
        temperature, top_p, min_p = self._floats[slots].unsqueeze(-1).unbind(1)  # [S, 1] each
        key, top_k, _, so_far = self._ints[slots].unbind(1)  # [S] each
        cuts = bool((needs & CUT).any())
        params = DrawParams(temperature, top_p, min_p, top_k[:, None], cuts)
        drawn = draw(logits.float(), params, uniform(key, so_far))
        if index is None:
            tokens.copy_(drawn)
        else:
            tokens[index] = drawn

    def _advance(
        self, tokens: torch.Tensor, slots: torch.Tensor, needs: Slots, order: Slots
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Count the tokens. Returns which rows ended, and which of them by their constraint."""
        self._ints[:, 3].index_add_(0, slots, torch.ones_like(slots))
        _, _, limit, so_far = self._ints[slots].unbind(1)
        ended = self._is_end[tokens] | (so_far >= limit)
        complete = torch.zeros_like(ended)
        rows = np.flatnonzero(needs & PENALIZED)
        if len(rows):
            self._penalties.count(order[rows], tokens[self._index(rows)])
        rows = np.flatnonzero(needs & CONSTRAINED)
        if len(rows) and self._grammars is not None:
            index = self._index(rows)
            over, done = self._grammars.accept(order[rows].tolist(), tokens[index].tolist())
            ended[index] |= torch.tensor(over, device=self._device)
            complete[index] = torch.tensor(done, device=self._device)
        return ended, complete

    def _logprobs(
        self, logits: torch.Tensor, tokens: torch.Tensor, needs: Slots, order: Slots
    ) -> Logprobs:
        rows = np.flatnonzero(needs & LOGPROBS)
        index = self._index(rows)
        raw = logits[index].float()  # [L, V]
        mass = raw.logsumexp(dim=-1, keepdim=True)
        most = min(int(self._most_logprobs[order[rows]].max()), raw.shape[-1])
        top = raw.topk(most, dim=-1)
        chosen = raw.gather(-1, tokens[index][:, None])
        return Logprobs(index, (chosen - mass)[:, 0], top.values - mass, top.indices)

    def _index(self, rows: Slots) -> torch.Tensor:
        return torch.from_numpy(rows).to(self._device, non_blocking=True)


def _key(row: Row) -> int:
    """A row's randomness, as a signed 64-bit integer."""
    seed = row.sampling.seed
    source = f"{_SALT}/{row.id}" if seed is None else f"{seed}"
    digest = hashlib.blake2b(f"{source}/{row.branch}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little", signed=True)
