"""Rough logits: products of a weight that is kept in a smaller type, and how far off they may be.

None is off by more than is said: with x and w rounded to x' and w' a logit moves by
xw - x'w' = x(w - w') + (x - x')w', which is at most |x||w - w'| + |x - x'||w'| (Cauchy and
Schwarz), and by what the sums round off. Knows no rows.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import torch

from models.native.linear import ROWS, lay_out

SUMMED = 2.0**-22  #: of a product, what float32 rounds off, for each of the numbers that it sums
CHUNK = 4096  #: rows of a weight that are looked at together
LEVELS = 127  #: steps of int8 to either side of 0
SMALLEST_STEP = 1e-30  #: of a row that is all but 0
WIDEST = 2**31 // (LEVELS * 255)  #: numbers of a row whose products int32 can sum


class Rough(Protocol):
    """Of hidden states [N, H]: logits [N, V] in bfloat16, each row in a unit of its own, and the
    margin [N] in that unit: two whose true order is another one were nearer than that before they
    were rounded to bfloat16."""

    name: str  #: of its type, as `models.host` calls it
    is_sound: bool  #: all numbers of the weight are finite

    def __call__(self, x: torch.Tensor, /) -> tuple[torch.Tensor, torch.Tensor]: ...


class Rounded:
    """Of a weight in float32: in bfloat16."""

    name = "bf16"

    def __init__(self, weight: torch.Tensor) -> None:
        self._linear = lay_out(weight.bfloat16())
        self._bound = _Bound(weight, lambda rows: rows.bfloat16().float())
        self.is_sound = self._bound.is_sound

    def __call__(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        rounded = x.bfloat16()
        return self._linear(rounded), self._bound.margin(x, rounded.float())


class Quantized:
    """Of a weight in either type: in int8 with a step for each row, of it and of the hidden states.
    The operators are those that torch's own compiler calls, see `PackedLinear`."""

    name = "int8"

    def __init__(self, weight: torch.Tensor) -> None:
        size, width = weight.shape
        numbers = torch.empty(size, width, dtype=torch.int8)
        self._steps = torch.empty(size)
        for start in range(0, size, CHUNK):
            rows = slice(start, start + CHUNK)
            levels, self._steps[rows] = _levels(weight[rows].float())
            numbers[rows] = levels.to(torch.int8)
        self._zeros = torch.zeros(size, dtype=torch.int64)
        self._packed = torch.ops.onednn.qlinear_prepack(numbers, [ROWS, width])
        self._linear = torch.ops.onednn.qlinear_pointwise.default
        self._bound = _Bound(weight, _rounded)
        self.is_sound = self._bound.is_sound

    def __call__(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        x = x.float()
        levels, steps = _levels(x)
        margin = self._bound.margin(x, levels * steps[:, None]) / steps
        # What oneDNN takes is unsigned; it subtracts the shift again.
        shifted = (levels + 128).to(torch.uint8)
        return self._product(shifted), margin

    def _product(self, shifted: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self._linear(
            shifted,
            1.0,
            128,
            self._packed,
            self._steps,
            self._zeros,
            None,
            1.0,
            0,
            torch.bfloat16,
            "none",
            [],
            "",
        )
        return logits


class _Bound:
    """How far the logits of a rounded weight may be off."""

    def __init__(
        self, weight: torch.Tensor, rounded: Callable[[torch.Tensor], torch.Tensor]
    ) -> None:
        lengths = []
        norm = torch.linalg.vector_norm
        for start in range(0, len(weight), CHUNK):
            rows = weight[start : start + CHUNK].float()
            other = rounded(rows)
            lengths.append(torch.stack((norm(rows - other, dim=1).max(), norm(other, dim=1).max())))
        lost, self._longest = torch.stack(lengths).amax(dim=0).tolist()  # a NaN stays one
        self._moved = lost + SUMMED * weight.shape[1] * self._longest  # times a hidden state's
        self.is_sound = self._moved + self._longest < float("inf")

    def margin(self, x: torch.Tensor, rounded: torch.Tensor) -> torch.Tensor:
        """Of two logits against each other, [N]; hidden states [N, H] and what they became."""
        lost = torch.linalg.vector_norm(x - rounded, dim=1)
        length = torch.linalg.vector_norm(x, dim=1)
        margin: torch.Tensor = 2 * (length * self._moved + lost * self._longest)
        return margin


def _levels(rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Whole numbers [N, H] from -127 to 127 in float32, and their steps [N]."""
    steps = rows.abs().amax(dim=1).clamp(min=LEVELS * SMALLEST_STEP) / LEVELS
    return (rows / steps[:, None]).round(), steps


def _rounded(rows: torch.Tensor) -> torch.Tensor:
    levels, steps = _levels(rows)
    return levels * steps[:, None]
