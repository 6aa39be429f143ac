"""An output layer that finds each row's likeliest token without making all its logits as they are.

It makes them in a smaller type, which the CPU multiplies faster (`rough.py`), and then anew
those few that may be the greatest. Knows no rows.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import nn

from models.device import free_memory
from models.drawing import BLOCK, Likeliest, block_tops, broken_rows
from models.host import cpu_is_fast
from models.native.linear import lay_out, packable
from models.packed.model import deferred
from models.packed.rough import WIDEST, Quantized, Rough, Rounded
from penstock.telemetry import get_logger

log = get_logger(__name__)

MOST = 128  #: logits of a row that are made anew, at most
HALF_STEP = 1.01 / 256  #: of a number, what its rounding to bfloat16 moves it by at most
WORTH = 16_000_000  #: multiplications of a product; of fewer, half saves less than the rest takes
#: Numbers of a weight below which that is so at any step, with the compiled `Refine` and with ours.
LEAST, LEAST_IN_TORCH = 250_000, 8_000_000
TRIED = 1024  #: rows after which a model whose logits lie too near is known for it
#: What a weight is screened by: the fastest first, and what to go on with where that is too coarse.
KINDS: dict[torch.dtype, tuple[type[Rounded] | type[Quantized], ...]] = {
    torch.float32: (Quantized, Rounded),
    torch.bfloat16: (Quantized,),
}

#: Rough logits [B, V] in bfloat16, the margin [B] by which one may be off against another before
#: that rounding, and what they were made of, [B, H] and [V, H] -> the first of the greatest true
#: ones [B], as numbers of those' type; -1 where more than MOST may be it, or none is a number.
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
    # The rounding of a rough logit; of true ones too, where those are equal after it.
    lost = (1 if weight.dtype is torch.float32 else 4) * HALF_STEP
    # What was at least this before it was rounded, is at least this rounded alike.
    floor = (top - top.abs() * lost - margin * (1 + lost)).to(rough.dtype)
    rows, blocks = (tops >= floor[:, None]).nonzero(as_tuple=True)
    places = starts[blocks][:, None] + torch.arange(block)  # [M, block]
    which, where = (rough[rows[:, None], places] >= floor[rows][:, None]).nonzero(as_tuple=True)
    rows, tokens = rows[which], places[which, where]
    few = rows.bincount(minlength=len(rough))[rows] <= MOST
    rows, tokens = rows[few], tokens[few]
    logits = (x[rows].float() * weight[tokens].float()).sum(dim=1).to(weight.dtype).float()
    greatest = torch.full_like(margin, -torch.inf).scatter_reduce(0, rows, logits, "amax")
    best = logits == greatest[rows]
    found = torch.full(margin.shape, size).scatter_reduce(0, rows[best], tokens[best], "amin")
    return found.where(found < size, -1)


class ScreenedHead(nn.Module):
    """Three copies of a weight: as it is, laid out for products, and rough."""

    def __init__(
        self,
        linear: nn.Linear,
        kinds: Sequence[Callable[[torch.Tensor], Rough]],
        refine: Refine,
        likeliest: Likeliest,
    ) -> None:
        super().__init__()
        self._weight = linear.weight.detach()
        self._exact = lay_out(self._weight)
        self.rough, *self._finer = kinds[0](self._weight), *kinds[1:]
        self._refine, self._likeliest = refine, likeliest
        self._seen = self._missed = 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits, or what they would be made of where that is asked for."""
        return x if deferred() else self._exact(x)

    def likeliest(self, x: torch.Tensor) -> torch.Tensor:
        """Of hidden states [N, H], tokens [N]. Raises FloatingPointError when a logit is not a
        number."""
        if len(x) * self._weight.numel() < WORTH or not self._pays():
            return self._by_all(x)
        x = x.contiguous()
        tokens = self._refine(*self.rough(x), x, self._weight)
        missed = (tokens < 0).nonzero()[:, 0]
        self._seen += len(tokens)
        if len(missed):
            self._missed += len(missed)
            tokens[missed] = self._by_all(x[missed])
        return tokens

    def _pays(self) -> bool:
        """Whether most rows are found by it; where not, it goes on with a finer type."""
        if 2 * self._missed <= self._seen + TRIED:
            return True
        if not self._finer:
            return False
        self.rough = self._finer.pop(0)(self._weight)
        self._seen = self._missed = 0
        log.info("head.finer", type=self.rough.name)
        return self.rough.is_sound

    def _by_all(self, x: torch.Tensor) -> torch.Tensor:
        logits = self._exact(x)
        tokens = self._likeliest(logits)
        broken_rows(logits, tokens)
        return tokens


@torch.inference_mode()
def screened(linear: nn.Module, fast: Refine | None, likeliest: Likeliest) -> ScreenedHead | None:
    """In place of an output layer; None where that is not exact, or does not pay. `fast`: the
    compiled one, if there is."""
    if not packable(linear) or linear.bias is not None:
        return None
    weight = linear.weight.detach()
    kinds = [kind for kind in KINDS[weight.dtype] if cpu_is_fast(kind.name)]
    least = LEAST_IN_TORCH if fast is None else LEAST
    if not kinds or weight.numel() < least or weight.shape[1] > WIDEST:
        return None
    if 8 * weight.nbytes > free_memory(weight.device):
        return None
    try:
        head = ScreenedHead(linear, kinds, fast or refine, likeliest)
    except (RuntimeError, AttributeError) as error:
        log.info("head.not_screened", reason=str(error))
        return None
    return head if head.rough.is_sound else None
