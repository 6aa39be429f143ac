"""Root-mean-square norms in one pass. Knows only what a module's attributes say; a module that says
something else of random numbers is left alone."""

from __future__ import annotations

import ctypes
from typing import Any

import torch
from torch import nn

from models.native.library import DTYPES
from models.native.linear import LaidOut, replace_children, same
from models.native.panels import Norm, PanelLinear


class NativeNorm(nn.Module):
    """x / rms(x) * (weight + offset) over the last dimension; `offset` is 1 in Gemma's models."""

    def __init__(
        self, library: ctypes.CDLL, weight: torch.Tensor, eps: float, offset: float
    ) -> None:
        super().__init__()
        self.weight = weight
        self.variance_epsilon = eps
        self._offset = offset
        self._norm = library.penstock_norm

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        weight = self.weight
        if x.dtype is not weight.dtype:
            raise TypeError(f"a norm of {weight.dtype} was given {x.dtype}")
        x = x.contiguous()
        out = torch.empty_like(x)
        size = x.shape[-1]
        self._norm(
            x.data_ptr(),
            size,
            weight.data_ptr(),
            out.data_ptr(),
            x.numel() // size,
            size,
            self.variance_epsilon,
            self._offset,
            x.dtype is torch.bfloat16,
            torch.get_num_threads(),
        )
        return out

    def then(self, product: LaidOut, x: torch.Tensor) -> torch.Tensor:
        """The product of what it makes of x."""
        if isinstance(product, PanelLinear):
            return product.normed(x, self.norm)
        return product.forward(self.forward(x))

    @property
    def norm(self) -> Norm:
        return Norm(self.weight, self.variance_epsilon, self._offset)


@torch.inference_mode()
def swap(model: nn.Module, library: ctypes.CDLL) -> list[str]:
    """In place; returns what it did, in words."""
    swapped = replace_children(model, lambda child: _ours(child, library))
    return [f"{swapped} norms compiled"] if swapped else []


def _ours(norm: Any, library: ctypes.CDLL) -> NativeNorm | None:
    if not type(norm).__name__.endswith("RMSNorm"):
        return None
    weight = getattr(norm, "weight", None)
    eps = getattr(norm, "variance_epsilon", getattr(norm, "eps", None))
    if not isinstance(weight, nn.Parameter) or weight.dim() != 1 or not isinstance(eps, float):
        return None
    if weight.device.type != "cpu" or weight.dtype not in DTYPES or not weight.is_contiguous():
        return None
    for offset in (0.0, 1.0):
        ours = NativeNorm(library, weight, eps, offset)
        try:
            if same(ours, norm, len(weight), weight.dtype):
                return ours
        except (TypeError, RuntimeError):  # it wants other arguments
            return None
    return None
