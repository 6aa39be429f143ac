"""An output layer that finds each row's likeliest token without making all its logits in float32.

It makes them of numbers rounded to bfloat16, which such a CPU multiplies twice as fast, and then
anew in float32 those few that may be the greatest. None is missed: with x and w rounded to x' and
w' a logit moves by xw - x'w' = x(w - w') + (x - x')w', which is at most |x||w - w'| + |x - x'||w'|
(Cauchy and Schwarz), and by what the sums round off. Knows no rows.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

from models.device import free_memory
from models.drawing import BLOCK, Likeliest, block_tops, broken_rows
from models.host import cpu_is_fast
from models.native.linear import PackedLinear, packable
from models.packed.model import deferred
from penstock.telemetry import get_logger

log = get_logger(__name__)

MOST = 128  #: logits of a row that are made anew, at most
HALF_STEP = 1.01 / 256  #: of a number, what its rounding to bfloat16 moves it by at most
SUMMED = 2.0**-22  #: of a product, what float32 rounds off, for each of the numbers that it sums
CHUNK = 4096  #: rows of a weight that are looked at together
WORTH = 16_000_000  #: multiplications of a product; of fewer, half saves less than the rest takes
#: Numbers of a weight below which that is so at any step, with the compiled `Refine` and with ours.
LEAST, LEAST_IN_TORCH = 250_000, 8_000_000
TRIED = 1024  #: rows after which a model whose logits lie too near is known for it

#: Rough logits [B, V], the margin [B] by which each may be off against another, and what they were
#: made of, [B, H] and [V, H] -> the first of the greatest true ones [B]; -1 where more than MOST
#: may be it, or none is a number.
Refine = Callable[[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]


def refine(
    rough: torch.Tensor, margin: torch.Tensor, x: torch.Tensor, weight: torch.Tensor
) -> torch.Tensor:
    """See `Refine`."""
    size = rough.shape[1]
    block = min(BLOCK, size)
    starts = torch.arange(0, size, block).clamp(max=size - block)
    tops = block_tops(rough)
    top = tops.amax(dim=1).float()
    # What was at least this before it was rounded, is at least this rounded alike.
    floor = (top - top.abs() * HALF_STEP - margin).to(rough.dtype)
    rows, blocks = (tops >= floor[:, None]).nonzero(as_tuple=True)
    places = starts[blocks][:, None] + torch.arange(block)  # [M, block]
    which, where = (rough[rows[:, None], places] >= floor[rows][:, None]).nonzero(as_tuple=True)
    rows, tokens = rows[which], places[which, where]
    few = rows.bincount(minlength=len(rough))[rows] <= MOST
    rows, tokens = rows[few], tokens[few]
    logits = (x[rows] * weight[tokens]).sum(dim=1)
    greatest = torch.full_like(margin, -torch.inf).scatter_reduce(0, rows, logits, "amax")
    best = logits == greatest[rows]
    found = torch.full(margin.shape, size).scatter_reduce(0, rows[best], tokens[best], "amin")
    return found.where(found < size, -1)


class ScreenedHead(nn.Module):
    """Three copies of a weight: as it is, and laid out for products in either type."""

    def __init__(self, linear: nn.Linear, refine: Refine, likeliest: Likeliest) -> None:
        super().__init__()
        self._weight = linear.weight.detach()
        rounded = self._weight.bfloat16()
        self._exact = PackedLinear(self._weight, None)
        self._rough = PackedLinear(rounded, None)
        self._refine, self._likeliest = refine, likeliest
        lost, self._longest = _lengths(self._weight, rounded)
        self._moved = lost + SUMMED * linear.in_features * self._longest  # times a hidden state's
        self._seen = self._missed = 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits, or what they would be made of where that is asked for."""
        return x if deferred() else self._exact(x)

    @property
    def is_sound(self) -> bool:
        """Whether all its numbers are finite."""
        return self._moved + self._longest < float("inf")

    def likeliest(self, x: torch.Tensor) -> torch.Tensor:
        """Of hidden states [N, H], tokens [N]. Raises FloatingPointError when a logit is not a
        number."""
        small = len(x) * self._weight.numel() < WORTH
        if small or 2 * self._missed > self._seen + TRIED:
            return self._by_all(x)
        x = x.contiguous()
        rounded = x.bfloat16()
        lost = torch.linalg.vector_norm(x - rounded, dim=1)
        length = torch.linalg.vector_norm(x, dim=1)
        margin = 2 * (length * self._moved + lost * self._longest)
        tokens = self._refine(self._rough(rounded), margin, x, self._weight)
        missed = (tokens < 0).nonzero()[:, 0]
        self._seen += len(tokens)
        if len(missed):
            self._missed += len(missed)
            tokens[missed] = self._by_all(x[missed])
        return tokens

    def _by_all(self, x: torch.Tensor) -> torch.Tensor:
        logits = self._exact(x)
        tokens = self._likeliest(logits)
        broken_rows(logits, tokens)
        return tokens


@torch.inference_mode()
def screened(linear: nn.Module, fast: Refine | None, likeliest: Likeliest) -> ScreenedHead | None:
    """In place of an output layer; None where that is not exact, or does not pay. `fast`: the
    compiled one, if there is."""
    if not packable(linear) or linear.weight.dtype is not torch.float32 or linear.bias is not None:
        return None
    least = LEAST_IN_TORCH if fast is None else LEAST
    if not cpu_is_fast("bf16") or linear.weight.numel() < least:
        return None
    if 8 * linear.weight.nbytes > free_memory(linear.weight.device):
        return None
    try:
        head = ScreenedHead(linear, fast or refine, likeliest)
    except (RuntimeError, AttributeError) as error:
        log.info("head.not_screened", reason=str(error))
        return None
    return head if head.is_sound else None


def _lengths(weight: torch.Tensor, rounded: torch.Tensor) -> tuple[float, float]:
    """Of a weight's rows, the longest difference from the same row rounded, and the longest one
    rounded."""
    lengths = []
    norm = torch.linalg.vector_norm
    for start in range(0, len(weight), CHUNK):
        row, other = weight[start : start + CHUNK], rounded[start : start + CHUNK].float()
        lengths.append(torch.stack((norm(row - other, dim=1).max(), norm(other, dim=1).max())))
    lost, longest = torch.stack(lengths).amax(dim=0).tolist()  # a NaN stays one
    return lost, longest
