"""Gated feed-forward layers: both products of the input as one, and the gate in one pass where it
is compiled. A module that says something else of random numbers is left alone."""

from __future__ import annotations

import ctypes
from typing import Any

import torch
from torch import nn

from models.native.library import how
from models.native.linear import LaidOut, lay_out, packable, replace_children, same
from models.native.norm import TorchNorm
from models.native.panels import PanelLinear


class TorchFeedForward(nn.Module):
    """down(silu(gate(x)) * up(x))."""

    def __init__(self, both: LaidOut, down: LaidOut) -> None:
        super().__init__()
        self.both = both
        self.down_proj = down

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.down_proj.forward(self._gated(self.both.forward(x)))

    def plus(self, x: torch.Tensor, norm: TorchNorm) -> torch.Tensor:
        """x and its output of a norm of x."""
        return self.down_proj.plus(self._gated(norm.then(self.both, x)), x)

    def _gated(self, both: torch.Tensor) -> torch.Tensor:
        gate, up = both.chunk(2, dim=-1)
        return nn.functional.silu(gate).mul_(up)


class NativeFeedForward(TorchFeedForward):
    """Its gate is compiled."""

    def __init__(self, library: ctypes.CDLL, both: LaidOut, down: LaidOut) -> None:
        super().__init__(both, down)
        self._gate = library.penstock_gate

    def _gated(self, both: torch.Tensor) -> torch.Tensor:
        if isinstance(self.both, PanelLinear):  # has done it
            return both
        size = both.shape[-1] // 2
        out = both.new_empty(*both.shape[:-1], size)
        self._gate(
            both.data_ptr(),
            out.data_ptr(),
            out.numel() // size,
            size,
            both.dtype is torch.bfloat16,
            torch.get_num_threads(),
        )
        return out


@torch.inference_mode()
def swap(model: nn.Module, library: ctypes.CDLL | None) -> list[str]:
    """In place; returns what it did, in words."""
    swapped = replace_children(model, lambda child: _ours(child, library))
    return [f"{swapped} feed-forward layers {how(library)}"] if swapped else []


def _ours(module: Any, library: ctypes.CDLL | None) -> TorchFeedForward | None:
    parts = [getattr(module, name, None) for name in ("gate_proj", "up_proj", "down_proj")]
    if not all(isinstance(part, nn.Module) and packable(part) for part in parts):
        return None
    gate, up, down = (part for part in parts if isinstance(part, nn.Linear))
    if gate.weight.shape != up.weight.shape or (gate.bias is None) != (up.bias is None):
        return None
    try:
        bias = None if gate.bias is None else torch.cat([gate.bias, up.bias])
        both = lay_out(torch.cat([gate.weight, up.weight]), bias, gated=True)
        down_proj = lay_out(down.weight, down.bias)
        if library is None:
            ours = TorchFeedForward(both, down_proj)
        else:
            ours = NativeFeedForward(library, both, down_proj)
        right = same(ours, module, gate.in_features, gate.weight.dtype)
    except (RuntimeError, AttributeError, TypeError):
        return None
    return ours if right else None
