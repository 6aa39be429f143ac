"""The next token of each row, by that row's own parameters. Knows no text and no model.

A row's token depends on its own logits and random numbers alone, whatever its neighbors are.
"""

from __future__ import annotations

import random
import secrets
from collections.abc import Sequence

import torch

from models.runner import Row

RANKED = 128  #: likeliest tokens looked at first: sorting a whole vocabulary is slow
WIDER = 16  #: times as many, when those do not hold the mass that is asked for
#: Rows without a seed: the same row draws the same numbers again when it is run again.
_SALT = secrets.token_hex(16)


def random_numbers(row: Row) -> random.Random:
    """The source of a row's randomness: one number a token."""
    seed = row.sampling.seed
    return random.Random(f"{_SALT}{row.id}" if seed is None else seed)  # noqa: S311


class Sampler:
    """The parameters of a micro-batch's rows as tensors, in the order of its rows."""

    def __init__(self, rows: Sequence[Row], vocabulary: int, device: torch.device) -> None:
        self._device = device
        self._params = [row.sampling for row in rows]
        self._random = [random_numbers(row) for row in rows]
        self._seen = _seen_tokens(rows, vocabulary, device)  # [B, V], or None when not needed
        self._build()

    def keep(self, indices: Sequence[int]) -> None:
        """Forget all other rows."""
        self._params = [self._params[i] for i in indices]
        self._random = [self._random[i] for i in indices]
        if self._seen is not None:
            self._seen = self._seen[torch.tensor(indices, device=self._device)]
        self._build()

    def _build(self) -> None:
        params = self._params
        drawn = [i for i, p in enumerate(params) if p.temperature > 0]
        self._drawn_rows = drawn
        self._drawn = torch.tensor(drawn, device=self._device, dtype=torch.long)
        self._penalty = self._column([p.repetition_penalty for p in params])
        chosen = [params[i] for i in drawn]
        self._temperature = self._column([p.temperature for p in chosen])
        self._top_k = [p.top_k for p in chosen]
        self._top_p = self._column([p.top_p for p in chosen])
        self._min_p = self._column([p.min_p for p in chosen])
        self._cuts = any(p.top_k or p.top_p < 1 for p in chosen)

    def _column(self, values: list[float]) -> torch.Tensor:
        return torch.tensor(values, device=self._device, dtype=torch.float32)[:, None]

    def choose(self, logits: torch.Tensor) -> list[int]:
        """Token ids for logits [B, V]. Raises FloatingPointError when one is not a number."""
        logits = logits.float()  # [B, V]
        if self._seen is not None:
            punished = torch.where(logits > 0, logits / self._penalty, logits * self._penalty)
            logits = torch.where(self._seen, punished, logits)
        tokens = logits.argmax(dim=-1)  # [B]; a NaN counts as the greatest
        broken = logits.gather(-1, tokens[:, None])[:, 0].isnan()
        if self._drawn_rows:
            tokens[self._drawn] = self._draw(logits[self._drawn])
        if self._seen is not None:
            self._seen.scatter_(1, tokens[:, None], True)
        chosen: list[int] = tokens.masked_fill(broken, -1).tolist()
        if -1 in chosen:
            raise FloatingPointError("the model's output is not a number")
        return chosen

    def _draw(self, logits: torch.Tensor) -> torch.Tensor:
        """Sample from the logits of the rows with a temperature, [S, V] -> [S]."""
        # Of a temperature near zero the quotient must not overflow to equal infinities.
        logits = (logits - logits.max(dim=-1, keepdim=True).values) / self._temperature
        floor = torch.log(self._min_p)  # the best logit is 0 now
        if self._cuts:
            floor = torch.maximum(floor, _nucleus_floor(logits, self._top_k, self._top_p))
        weights = torch.softmax(logits.masked_fill(logits < floor, -torch.inf), dim=-1)
        # In the vocabulary's order, so that noise which reorders near ties moves nothing.
        cumulative = weights.cumsum(dim=-1, dtype=torch.float64)  # [S, V]
        uniform = [self._random[i].random() for i in self._drawn_rows]
        drawn = torch.tensor(uniform, device=self._device, dtype=torch.float64)[:, None]
        index = torch.searchsorted(cumulative, drawn * cumulative[:, -1:], right=True)[:, 0]
        # A product that rounded up to the whole mass lies behind the last token.
        return torch.where(index < logits.shape[-1], index, weights.argmax(dim=-1))


def _nucleus_floor(
    logits: torch.Tensor, top_k: list[int], top_p: torch.Tensor, ranked_first: int = RANKED
) -> torch.Tensor:
    """The lowest logit that is kept by top-k, then top-p among those, [S, V] -> [S, 1]. Ties with
    it are kept too."""
    vocabulary = logits.shape[-1]
    width = min(vocabulary, max(ranked_first, *top_k))
    ranked = logits.topk(width, dim=-1).values  # [S, W], best first
    last = [min(k, vocabulary) - 1 if k else -1 for k in top_k]
    ranks = torch.tensor(last, device=logits.device)[:, None]
    by_k = ranked.gather(-1, ranks.clamp(min=0)).masked_fill(ranks < 0, -torch.inf)
    mass = logits.masked_fill(logits < by_k, -torch.inf).logsumexp(dim=-1, keepdim=True)
    inside = (ranked - mass).exp().masked_fill(ranked < by_k, 0.0).cumsum(dim=-1)
    # The first rank at which the mass reaches top_p is the last one kept.
    reached = (inside < top_p).sum(dim=-1, keepdim=True)
    whole = top_p >= 1
    by_p = ranked.gather(-1, reached.clamp(max=width - 1)).masked_fill(whole, -torch.inf)
    floor = torch.maximum(by_k, by_p)
    if width < vocabulary:
        flat = ((reached == width) & ~whole & (ranks < 0))[:, 0].nonzero()[:, 0]
        if len(flat):
            wider = _nucleus_floor(logits[flat], [0] * len(flat), top_p[flat], width * WIDER)
            floor[flat] = wider
    return floor


def _seen_tokens(rows: Sequence[Row], vocabulary: int, device: torch.device) -> torch.Tensor | None:
    """Which tokens each row has had, its prompt included, when a row is punished for repeating."""
    if all(row.sampling.repetition_penalty == 1 for row in rows):
        return None
    seen = torch.zeros(len(rows), vocabulary, dtype=torch.bool)
    for index, row in enumerate(rows):
        seen[index, torch.tensor(row.prompt)] = True
    return seen.to(device)
