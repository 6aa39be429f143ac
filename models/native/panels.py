"""Linear layers by a product of our own, which multiplies and sums in float32 whatever the type of
the numbers. Some CPUs have instructions for bfloat16 and are slow with them: there oneDNN, which
uses them, takes nearly twice as long. In float32 it saves what oneDNN does anew for each size of a
step.
"""

from __future__ import annotations

import ctypes
from typing import NamedTuple

import torch
from torch import nn

from models.native.library import DTYPES, library

PANEL, LANES = 32, 16  #: numbers of columns and rows of a weight are multiples of these


class Norm(NamedTuple):
    """x / rms(x) * (weight + offset), of what is multiplied."""

    weight: torch.Tensor
    eps: float
    offset: float


class Product(ctypes.Structure):
    """`Product` in linear.h."""

    _fields_ = (
        *((name, ctypes.c_void_p) for name in ("x", "norm", "weights", "bias", "other", "y")),
        *((name, ctypes.c_int64) for name in ("rows", "columns", "size", "gated")),
        *((name, ctypes.c_float) for name in ("eps", "offset")),
    )


class PanelLinear(nn.Module):
    """A linear layer without `.weight`: only the copy in panels is kept. A row's result does not
    depend on the rows beside it. `gated`: half as wide, silu(a) * b of both halves of its columns.
    Raises RuntimeError for what it is not made for."""

    def __init__(
        self, weight: torch.Tensor, bias: torch.Tensor | None, gated: bool = False
    ) -> None:
        super().__init__()
        loaded = library()
        self._columns, self.in_features = weight.shape
        if loaded is None or not fits(weight):
            raise RuntimeError("a weight that does not lie in panels")
        self.gated = gated
        self.out_features = self._columns // 2 if gated else self._columns
        laid = _paired if gated else torch.Tensor.contiguous
        weight = laid(weight.detach())
        self.bias = None if bias is None else laid(bias.detach())
        self.dtype = weight.dtype
        self._half = weight.dtype is torch.bfloat16
        self._multiply = loaded.penstock_linear
        self._panels = torch.empty_like(weight)
        loaded.penstock_lay_out(
            weight.data_ptr(),
            self._panels.data_ptr(),
            self._columns,
            self.in_features,
            self._half,
            torch.get_num_threads(),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self._by(x)

    def normed(self, x: torch.Tensor, norm: Norm) -> torch.Tensor:
        """Its product of a norm of x, rounded to the type of x before it is multiplied."""
        return self._by(x, norm=norm)

    def plus(self, x: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
        """Its product and another tensor of that shape, summed before they are rounded."""
        return self._by(x, other.contiguous())

    def product(self, norm: Norm | None = None) -> Product:
        """All but x, another, y and rows; a norm as in `normed`."""
        weight = None if norm is None else norm.weight
        if weight is not None and (weight.dtype, len(weight)) != (self.dtype, self.in_features):
            raise RuntimeError(f"a norm of {weight.dtype} {tuple(weight.shape)}")
        return Product(
            norm=None if weight is None else weight.data_ptr(),
            weights=self._panels.data_ptr(),
            bias=None if self.bias is None else self.bias.data_ptr(),
            columns=self._columns,
            size=self.in_features,
            gated=self.gated,
            eps=0.0 if norm is None else norm.eps,
            offset=0.0 if norm is None else norm.offset,
        )

    def _by(
        self, x: torch.Tensor, other: torch.Tensor | None = None, norm: Norm | None = None
    ) -> torch.Tensor:
        shape = (*x.shape[:-1], self.out_features)
        if x.dtype is not self.dtype or x.shape[-1] != self.in_features:
            raise RuntimeError(f"a layer of {self.dtype} was given {x.dtype} {tuple(x.shape)}")
        if other is not None and (other.dtype is not x.dtype or other.shape != shape):
            raise RuntimeError(f"a sum of {shape} was given {other.dtype} {tuple(other.shape)}")
        x, y = x.contiguous(), x.new_empty(shape)
        rows = x.numel() // self.in_features
        if not rows:
            return y
        product = self.product(norm)
        product.x, product.y, product.rows = x.data_ptr(), y.data_ptr(), rows
        product.other = None if other is None else other.data_ptr()
        self._multiply(ctypes.byref(product), self._half, torch.get_num_threads())
        return y


def _paired(columns: torch.Tensor) -> torch.Tensor:
    """Each 16 columns of the first half before the 16 of the second that they are gates of."""
    halves = columns.reshape(2, -1, LANES, *columns.shape[1:])
    return halves.transpose(0, 1).reshape(columns.shape)


def fits(weight: torch.Tensor) -> bool:
    """Whether it lies in panels."""
    columns, size = weight.shape
    return weight.dtype in DTYPES and columns % PANEL == 0 and size % LANES == 0
