"""Draws tokens from logits by temperature, top-k, top-p and min-p. Knows no rows and no state.

What a cut keeps are all tokens at or above some logit, so those that tie with it are kept too.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

RANKED = 128  #: likeliest tokens looked at first: to look at a whole vocabulary is slow
SMALL = 4 * RANKED  #: a vocabulary that is ranked as a whole
WIDER = 32  #: times as many, when those do not hold all that may be drawn
MOST_RANKED = 4_096  #: so many are not worth ranking
GOLDEN = -7046029254386353131  #: 2**64 / the golden ratio, as the signed integer of its bits
INFINITY = 0x7F800000  #: the bits of the float32
MIX = (-4658895280553007687, -7723592293110705685)  #: splitmix64's multipliers, likewise
BLOCK = 512  #: tokens of the vocabulary that the first look takes together

#: The greatest of each row, [B, V] -> [B]; a NaN counts as that.
Likeliest = Callable[[torch.Tensor], torch.Tensor]


def likeliest(logits: torch.Tensor) -> torch.Tensor:
    """See `Likeliest`. Torch's own argmax is one thread's work on the CPU, and twenty times slower
    on a wide bfloat16 row than this."""
    size = logits.shape[-1]
    if logits.device.type != "cpu" or size < 2 * BLOCK:
        return logits.argmax(dim=-1)
    tops = block_tops(logits)
    start = (tops.float().argmax(dim=-1, keepdim=True) * BLOCK).clamp(max=size - BLOCK)  # [B, 1]
    found = logits.gather(1, start + torch.arange(BLOCK)).float()
    best: torch.Tensor = start[:, 0] + found.argmax(dim=-1)
    return best


def block_tops(logits: torch.Tensor) -> torch.Tensor:
    """The greatest of each BLOCK of a row, [B, V] -> [B, blocks]; the last may be shorter."""
    size = logits.shape[-1]
    blocks, rest = divmod(size, BLOCK)
    tops = logits[:, : size - rest].reshape(len(logits), blocks, BLOCK).amax(dim=-1)
    if rest:
        tops = torch.cat((tops, logits[:, size - rest :].amax(dim=-1, keepdim=True)), dim=1)
    return tops


def broken_rows(logits: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
    """Whether the likeliest tokens [B] of [B, V] mean nothing: some logit is not a number. On the
    CPU, where it costs no wait, raises FloatingPointError if so."""
    broken = logits.gather(-1, tokens[:, None])[:, 0].isnan()
    if logits.device.type == "cpu" and bool(broken.any()):
        raise FloatingPointError("the model's output is not a number")
    return broken


@dataclass(frozen=True, slots=True)
class DrawParams:
    """Of S rows, each [S, 1] on the device. `top_k` 0 keeps all; `cuts`: some row has top-k, top-p
    or min-p."""

    temperature: torch.Tensor  # float32, above 0
    top_p: torch.Tensor  # float32
    min_p: torch.Tensor  # float32
    top_k: torch.Tensor  # int64
    cuts: bool

    def of(self, rows: torch.Tensor) -> DrawParams:
        return DrawParams(
            self.temperature[rows], self.top_p[rows], self.min_p[rows], self.top_k[rows], self.cuts
        )


def uniform(keys: torch.Tensor, counts: torch.Tensor) -> torch.Tensor:
    """Numbers in [0, 1) as float64, one for each (key, count): splitmix64 with the key as its seed,
    at its count-th step."""
    mixed = keys + (counts + 1) * GOLDEN
    for shift, factor in zip((30, 27), MIX, strict=True):
        mixed = (mixed ^ _shifted(mixed, shift)) * factor
    mixed = mixed ^ _shifted(mixed, 31)
    return _shifted(mixed, 11).double() * 2.0**-53


def _shifted(bits: torch.Tensor, places: int) -> torch.Tensor:
    """A shift to the right that brings in zeros, not the sign."""
    return (bits >> places) & ((1 << (64 - places)) - 1)


def draw(
    logits: torch.Tensor, params: DrawParams, numbers: torch.Tensor, ranked: int = RANKED
) -> torch.Tensor:
    """Sample from float32 logits [S, V] by numbers [S] in [0, 1) -> [S]."""
    # Elsewhere to ask which rows are flat would wait for the device.
    if not params.cuts or ranked > MOST_RANKED or logits.device.type != "cpu":
        return _draw_from_all(logits, params, numbers)
    width = logits.shape[-1] if logits.shape[-1] <= SMALL else min(ranked, logits.shape[-1])
    tokens, found = _draw_from_likeliest(logits, params, numbers, width)
    if not bool(found.all()):
        flat = (~found).nonzero()[:, 0]
        tokens[flat] = draw(logits[flat], params.of(flat), numbers[flat], ranked * WIDER)
    return tokens


def _draw_from_likeliest(
    logits: torch.Tensor, params: DrawParams, numbers: torch.Tensor, width: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Tokens [S], and for which rows all that may be drawn are among the `width` likeliest [S]."""
    vocabulary = logits.shape[-1]
    limit = _limit(params.top_k, vocabulary)
    ranked, names = logits.topk(width, dim=-1)  # [S, W], best first
    best = ranked[:, :1]
    scaled = (ranked - best) / params.temperature
    by_k = scaled.gather(-1, (limit - 1).clamp(max=width - 1))
    by_k = by_k.masked_fill(limit > width, -torch.inf)
    weights = scaled.exp().masked_fill(scaled < by_k, 0.0)
    mass = weights.sum(dim=-1, keepdim=True)
    everything = ((logits - best) / params.temperature).exp_().sum(dim=-1, keepdim=True)
    mass = torch.where(limit < vocabulary, mass, everything)
    # The first rank at which the mass reaches top_p is the last one kept.
    reached = (weights.cumsum(dim=-1) < params.top_p * mass).sum(dim=-1, keepdim=True)
    by_p = scaled.gather(-1, reached.clamp(max=width - 1))
    by_p = by_p.masked_fill((params.top_p >= 1) | (reached >= width), -torch.inf)
    floor = torch.maximum(torch.maximum(by_k, by_p), params.min_p.log())
    # Tokens that tie with the last one kept are kept: none of them may lie further down. Of a
    # top-k that ends there the mass is not known.
    unknown = (limit > width) & (limit < vocabulary) & (params.top_p < 1)
    found = (floor > scaled[:, -1:]) & ~unknown | (width == vocabulary)
    names, order = names.sort(dim=-1)
    kept = weights.masked_fill(scaled < floor, 0.0).gather(-1, order)
    return names.gather(-1, _pick(kept, numbers)[:, None])[:, 0], found[:, 0]


def _draw_from_all(logits: torch.Tensor, params: DrawParams, numbers: torch.Tensor) -> torch.Tensor:
    # Of a temperature near zero the quotient must not overflow to equal infinities.
    scaled = (logits - logits.max(dim=-1, keepdim=True).values) / params.temperature
    weights = scaled.exp()
    if params.cuts:
        floor = torch.maximum(params.min_p.log(), _searched_floor(scaled, params))
        weights = weights.masked_fill_(scaled < floor, 0.0)
    return _pick(weights, numbers)


def _pick(weights: torch.Tensor, numbers: torch.Tensor) -> torch.Tensor:
    """Indices by weight, [S, W] -> [S]. In the vocabulary's order, so that noise which reorders
    near ties moves nothing."""
    cumulative = weights.cumsum(dim=-1, dtype=torch.float64)
    index = torch.searchsorted(cumulative, numbers[:, None] * cumulative[:, -1:], right=True)[:, 0]
    # A product that rounded up to the whole mass lies behind the last token.
    return torch.where(index < weights.shape[-1], index, weights.argmax(dim=-1))


def _limit(top_k: torch.Tensor, vocabulary: int) -> torch.Tensor:
    return torch.where(top_k > 0, top_k.clamp(max=vocabulary), vocabulary)


def _searched_floor(scaled: torch.Tensor, params: DrawParams) -> torch.Tensor:
    """The lowest logit that is kept by top-k, then top-p among those, [S, V] -> [S, 1]: by halving,
    which waits for no device and does not care how many are kept. The best logit is 0."""
    distance = scaled.abs()
    limit = _limit(params.top_k, scaled.shape[-1])
    by_k = _halve(distance, torch.ones_like(distance), limit)
    weights = scaled.exp().masked_fill(distance > by_k, 0.0)
    by_p = _halve(distance, weights, params.top_p * weights.sum(dim=-1, keepdim=True))
    return -torch.where(params.top_p < 1, torch.minimum(by_k, by_p), by_k)


def _halve(distance: torch.Tensor, weights: torch.Tensor, enough: torch.Tensor) -> torch.Tensor:
    """The least distance within which the weights add up to `enough`, [S, V] -> [S, 1]."""
    # The bits of floats that are not negative are in the order of the floats.
    low = torch.zeros_like(enough, dtype=torch.int32)
    high = torch.full_like(low, INFINITY)
    for _ in range(31):
        middle = low + (high - low) // 2
        inside = weights.masked_fill(distance > middle.view(torch.float32), 0.0)
        reached = inside.sum(dim=-1, keepdim=True) >= enough
        low, high = torch.where(reached, low, middle + 1), torch.where(reached, middle, high)
    return high.view(torch.float32)
