"""A decoder layer as one call of C++, where all of its products lie in panels. A step of a small
model is over in milliseconds, and Python between the parts of its layers took a tenth of them."""

from __future__ import annotations

import ctypes
from typing import NamedTuple

import torch

from models.native.attention import BEHIND, Call, NativeAttention
from models.native.linear import LaidOut
from models.native.panels import Norm, PanelLinear, Product
from models.native.placing import OUTSIDE, Tokens, fits, tokens_of
from models.packed.model import Running


class _Layer(ctypes.Structure):
    """`Layer` of layer.cpp."""

    _fields_ = tuple((name, Product) for name in ("qkv", "out", "both", "down"))


class _Pass(ctypes.Structure):
    """`Pass` of layer.cpp."""

    _fields_ = (
        ("x", ctypes.c_void_p),
        ("y", ctypes.c_void_p),
        ("keep", ctypes.c_void_p),
        ("kept", ctypes.c_int64),
        ("plan", ctypes.c_void_p),
        ("tokens", Tokens),
        ("call", Call),
    )


class Parts(NamedTuple):
    """h = x + out(attend(qkv(first(x)))), then h + down(both(second(h)))."""

    first: Norm
    qkv: LaidOut
    out: LaidOut
    second: Norm
    both: LaidOut
    down: LaidOut


def whole(
    library: ctypes.CDLL, parts: Parts, scaling: float, window: int | None
) -> WholeLayer | None:
    """None where a product does not lie in panels."""
    qkv, out, both, down = parts.qkv, parts.out, parts.both, parts.down
    if not (isinstance(qkv, PanelLinear) and isinstance(out, PanelLinear)):
        return None
    if not (isinstance(both, PanelLinear) and both.gated and isinstance(down, PanelLinear)):
        return None
    layer = _Layer(
        qkv.product(parts.first), out.product(), both.product(parts.second), down.product()
    )
    return WholeLayer(library, parts, layer, scaling, window)


class WholeLayer:
    """Raises IndexError for a place outside of the arena, and ValueError for a layout that reads
    behind it."""

    def __init__(
        self,
        library: ctypes.CDLL,
        parts: Parts,
        layer: _Layer,
        scaling: float,
        window: int | None,
    ) -> None:
        self._run = library.penstock_layer
        self._parts = parts  # whose memory `_layer` points to
        self._layer = layer
        self._scaling = scaling
        self._window = window

    def __call__(
        self,
        x: torch.Tensor,
        cos: torch.Tensor,
        sin: torch.Tensor,
        index: int,
        step: Running,
        keep: torch.Tensor | None,
    ) -> torch.Tensor | None:
        """What the layer of that `index` makes of x [1, T, hidden], with keys and values put into
        the arena on the way; with `keep` [N], only those mean anything. None, and nothing was done,
        for what this was not made for."""
        keys, values, where = step.store.keys[index], step.store.values[index], step.layout.write
        arena = (cos, sin, keys, values, where)
        attend, size = step.attend, keys.shape[2]
        qkv, seeing = self._parts.qkv, self._parts.out.in_features
        if not (isinstance(attend, NativeAttention) and fits(x, *arena)):
            return None
        if (x.dtype, x.shape[2]) != (qkv.dtype, qkv.in_features):
            return None
        if qkv.out_features != seeing + 2 * len(keys) * size:
            return None
        heads = seeing // size
        layout = step.layout if keep is None else step.layout.kept()
        plan, call = attend.prepare(
            heads, keys, values, layout, scaling=self._scaling, window=self._window
        )
        x, y = x.contiguous(), torch.empty_like(x)
        given = _Pass(
            x.data_ptr(),
            y.data_ptr(),
            None if keep is None else keep.data_ptr(),
            -1 if keep is None else len(keep),
            plan,
            tokens_of(heads, *arena),
            call,
        )
        bf16 = x.dtype is torch.bfloat16
        failed = self._run(
            ctypes.byref(self._layer), ctypes.byref(given), bf16, torch.get_num_threads()
        )
        if failed:
            raise IndexError(OUTSIDE) if failed == 1 else ValueError(BEHIND)
        return y
