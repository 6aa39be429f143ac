"""Linear layers whose weights were laid out beforehand, by oneDNN or in panels of our own. oneDNN's
are in float32 twice as fast as what torch runs by default where MKL keeps to AVX2; in bfloat16 they
save the layout at each call. Where MKL is as fast, it is better: a new number of rows costs it
nothing.

oneDNN's operators are those that torch's own compiler calls; they are private, so all is checked.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias, TypeGuard

import torch
from torch import nn

from models.device import free_memory
from models.native.library import DTYPES
from models.native.panels import PanelLinear, fits
from models.native.timing import gain

ROWS = 64  #: the layout is chosen for steps of this size; it is as good for more, and for one
WORTH_PANELS = 0.95  #: times as fast: a decoder layer that has nothing else is one call
#: Times as fast with numbers of rows that oneDNN knows: a new one costs it several products.
WORTH_BLAS = 0.85
WORTH_TWICE = 1.05  #: times as fast, for which a weight is kept at twice its size
ROOM = 64  #: such weights that have to fit into free memory then
SMALLEST = 128 * 128  #: numbers of a weight below which calls cost more than they save
TOLERANCE = {torch.float32: 1e-5, torch.bfloat16: 1e-2}  #: of the largest number


class PackedLinear(nn.Module):
    """A linear layer without `.weight`: only the laid out copy is kept, in the type that it
    computes in: by default the weight's. Raises RuntimeError or AttributeError where this torch has
    no such operators."""

    def __init__(
        self, weight: torch.Tensor, bias: torch.Tensor | None, dtype: torch.dtype | None = None
    ) -> None:
        super().__init__()
        self.out_features, self.in_features = weight.shape
        self.dtype = weight.dtype if dtype is None else dtype
        self.is_wide = self.dtype is not weight.dtype
        self.bias = None if bias is None else bias.to(self.dtype)
        weight = weight.detach().to(self.dtype)
        self._packed = torch.ops.mkldnn._reorder_linear_weight(weight, ROWS)
        self._linear = torch.ops.mkldnn._linear_pointwise.default
        self._sum = torch.ops.mkldnn._linear_pointwise.binary

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        wide = x.to(self.dtype)
        out: torch.Tensor = self._linear(wide, self._packed, self.bias, "none", [], "")
        return out.to(x.dtype)

    def plus(self, x: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
        """Its product and another tensor of that shape, summed before they are rounded."""
        wide, more = x.to(self.dtype), other.to(self.dtype)
        out: torch.Tensor = self._sum(wide, more, self._packed, self.bias, "add")
        return out.to(x.dtype)


class BlasLinear(nn.Module):
    """A linear layer in float32 by the BLAS that torch was built with: MKL, as a rule."""

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor | None) -> None:
        super().__init__()
        self.out_features, self.in_features = weight.shape
        self.is_wide = weight.dtype is not torch.float32
        self.bias = None if bias is None else bias.float()
        self._weight = weight.detach().float()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return nn.functional.linear(x.float(), self._weight, self.bias).to(x.dtype)

    def plus(self, x: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
        """See `PackedLinear`."""
        out = nn.functional.linear(x.float(), self._weight, self.bias)
        return out.add_(other).to(x.dtype)


TorchLinear: TypeAlias = PackedLinear | BlasLinear
LaidOut: TypeAlias = TorchLinear | PanelLinear


def lay_out(weight: torch.Tensor, bias: torch.Tensor | None = None, gated: bool = False) -> LaidOut:
    """The fastest one on this CPU. `gated`: one in panels is to be so. Raises RuntimeError or
    AttributeError where this torch has no operators of oneDNN."""
    theirs = _fastest_of_torch(weight)
    if fits(weight) and gain(weight, PanelLinear, theirs) > WORTH_PANELS:
        return PanelLinear(weight, bias, gated)
    return theirs(weight, bias)


def _fastest_of_torch(
    weight: torch.Tensor,
) -> Callable[[torch.Tensor, torch.Tensor | None], TorchLinear]:
    """A weight in bfloat16 is kept in float32 only while there is room for that."""
    has_blas = gain(weight, BlasLinear, _wide, new_sizes=False) > WORTH_BLAS
    wide = BlasLinear if has_blas else _wide
    if weight.dtype is torch.float32:
        return wide
    has_room = ROOM * weight.nbytes <= free_memory(weight.device)
    if has_room and gain(weight, wide, PackedLinear, new_sizes=False) > WORTH_TWICE:
        return wide
    return PackedLinear


def _wide(weight: torch.Tensor, bias: torch.Tensor | None) -> PackedLinear:
    """In bfloat16 twice as large, and faster where the CPU is slow in it."""
    return PackedLinear(weight, bias, torch.float32)


def packable(module: nn.Module) -> TypeGuard[nn.Linear]:
    """Whether it is a plain linear layer on the CPU that gains by it."""
    if type(module) is not nn.Linear or "forward" in module.__dict__:
        return False
    weight = module.weight
    return (
        torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
        and weight.device.type == "cpu"
        and weight.dtype in DTYPES
        and weight.numel() >= SMALLEST
    )


def same(ours: nn.Module, theirs: nn.Module, size: int, dtype: torch.dtype) -> bool:
    """Whether two modules say the same of random numbers, [1, rows, size], but for rounding."""
    generator = torch.Generator().manual_seed(0)
    for rows in (1, 5):
        x = torch.randn(1, rows, size, generator=generator).to(dtype)
        a, b = ours(x), theirs(x)
        if a.shape != b.shape or a.dtype != b.dtype:
            return False
        far = (a.float() - b.float()).abs().max()
        if not far <= TOLERANCE[dtype] * b.float().abs().max().clamp(min=1e-3):
            return False
    return True


def replace_children(model: nn.Module, ours: Callable[[nn.Module], nn.Module | None]) -> int:
    """Put `ours` of each child, where there is one, in its place. Returns how many."""
    replaced = 0
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            made = ours(child)
            if made is not None:
                setattr(parent, name, made)
                replaced += 1
    return replaced


@torch.inference_mode()
def prepack(model: nn.Module) -> list[str]:
    """Swap a model's linear layers for packed ones where that is exact and pays, in place. Returns
    what it did, in words."""
    embedded = {id(m.weight) for m in model.modules() if isinstance(m, nn.Embedding)}
    swapped = replace_children(
        model, lambda child: pack(child) if packable(child) and _fits(child, embedded) else None
    )
    return [f"{swapped} linear layers laid out"] if swapped else []


def pack(linear: nn.Linear) -> LaidOut | None:
    """None where the operators are missing or say something else, or nothing is faster."""
    try:
        packed = lay_out(linear.weight, linear.bias)
        right = same(packed, linear, linear.in_features, linear.weight.dtype)
    except (RuntimeError, AttributeError):
        return None
    is_as_before = isinstance(packed, BlasLinear) and not packed.is_wide
    return packed if right and not is_as_before else None


def _fits(linear: nn.Linear, embedded: set[int]) -> bool:
    """A weight that is also the embedding's is kept twice: only where there is room."""
    if id(linear.weight) not in embedded:
        return True
    return linear.weight.nbytes <= free_memory(linear.weight.device) // 4
