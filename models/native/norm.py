"""Root-mean-square norms in one pass, or in one call of torch's. Knows only what a module's
attributes say; a module that says something else of random numbers is left alone."""

from __future__ import annotations

import ctypes
from typing import Any

import torch
from torch import nn

from models.native.library import DTYPES, how
from models.native.linear import LaidOut, replace_children, same
from models.native.panels import Norm, PanelLinear


class TorchNorm(nn.Module):
    """x / rms(x) * weight over the last dimension. Raises TypeError for x of another type."""

    def __init__(self, weight: torch.Tensor, eps: float) -> None:
        super().__init__()
        self.weight = weight
        self.variance_epsilon = eps

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if x.dtype is not self.weight.dtype:
            raise TypeError(f"a norm of {self.weight.dtype} was given {x.dtype}")
        return self._normed(x)

    def then(self, product: LaidOut, x: torch.Tensor) -> torch.Tensor:
        """The product of what it makes of x."""
        return product.forward(self.forward(x))

    def _normed(self, x: torch.Tensor) -> torch.Tensor:
        weight = self.weight
        return nn.functional.rms_norm(x, weight.shape, weight, self.variance_epsilon)


class NativeNorm(TorchNorm):
    """x / rms(x) * (weight + offset); `offset` is 1 in Gemma's models."""

    def __init__(
        self, library: ctypes.CDLL, weight: torch.Tensor, eps: float, offset: float
    ) -> None:
        super().__init__(weight, eps)
        self._offset = offset
        self._norm = library.penstock_norm

    def then(self, product: LaidOut, x: torch.Tensor) -> torch.Tensor:
        if isinstance(product, PanelLinear):
            return product.normed(x, self.norm)
        return super().then(product, x)

    @property
    def norm(self) -> Norm:
        return Norm(self.weight, self.variance_epsilon, self._offset)

    def _normed(self, x: torch.Tensor) -> torch.Tensor:
        x = x.contiguous()
        out = torch.empty_like(x)
        size = x.shape[-1]
        self._norm(
            x.data_ptr(),
            size,
            self.weight.data_ptr(),
            out.data_ptr(),
            x.numel() // size,
            size,
            self.variance_epsilon,
            self._offset,
            x.dtype is torch.bfloat16,
            torch.get_num_threads(),
        )
        return out


@torch.inference_mode()
def swap(model: nn.Module, library: ctypes.CDLL | None) -> list[str]:
    """In place; returns what it did, in words."""
    swapped = replace_children(model, lambda child: _ours(child, library))
    return [f"{swapped} norms {how(library)}"] if swapped else []


def _ours(norm: Any, library: ctypes.CDLL | None) -> TorchNorm | None:
    if not type(norm).__name__.endswith("RMSNorm"):
        return None
    weight = getattr(norm, "weight", None)
    eps = getattr(norm, "variance_epsilon", getattr(norm, "eps", None))
    if not isinstance(weight, nn.Parameter) or weight.dim() != 1 or not isinstance(eps, float):
        return None
    if weight.device.type != "cpu" or weight.dtype not in DTYPES or not weight.is_contiguous():
        return None
    candidates = [TorchNorm(weight, eps)]
    if library is not None:
        candidates = [NativeNorm(library, weight, eps, offset) for offset in (0.0, 1.0)]
    try:
        return next(
            (ours for ours in candidates if same(ours, norm, len(weight), weight.dtype)), None
        )
    except (TypeError, RuntimeError):  # it wants other arguments
        return None
