"""How much a packed runner may hold: positions of its arena, rows, the longest row. Derived from
free memory and the model's shape; knows no model and allocates nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from models.packed.store import LayerShape
from penstock.errors import ModelError

#: Share of the free memory that keys and values get. Others live on the CPU, too.
SHARES = {"cpu": 0.5, "cuda": 0.85}
ROWS = 128
STEP_TOKENS = 512
LEAST_PER_ROW = 128  #: tokens: where there are fewer for each, fewer rows run at once
LEAST = 256  #: tokens: an arena that cannot hold a row of them, or of the context, is of no use
#: float32 copies of the logits that sampling holds at once, and of a layer's widest activations.
LOGITS_COPIES, WIDE_COPIES = 6, 4
MOST = 2**31 - 1  #: positions are 32-bit integers in the kernels
MIB = 1024**2


@dataclass(frozen=True, slots=True)
class Shape:
    """What memory depends on. `width`: of the widest layer; sizes in numbers, not bytes."""

    layers: Sequence[LayerShape]
    context: int
    vocabulary: int
    width: int

    @property
    def bytes_per_token(self) -> int:
        return sum(layer.bytes_per_token for layer in self.layers)


@dataclass(frozen=True, slots=True)
class Wishes:
    """What was asked for; None: what fits. `kv_share`: of the free memory."""

    kv_tokens: int | None = None
    kv_share: float | None = None
    max_rows: int | None = None
    express_rows: int = 8


@dataclass(frozen=True, slots=True)
class Sizes:
    """What fits. `longest`: tokens of the longest row, prompt and answer."""

    kv_tokens: int
    kv_bytes: int
    max_rows: int
    longest: int

    def __str__(self) -> str:
        return (
            f"{self.max_rows} rows at once, keys and values of {self.kv_tokens:,} tokens in"
            f" {_said(self.kv_bytes)}, the longest row {self.longest:,} tokens"
        )


def derive(shape: Shape, wishes: Wishes, device: torch.device, free: int) -> Sizes:
    """`free`: bytes, once the weights are loaded. Raises ModelError when no useful row fits."""
    rows = wishes.max_rows or ROWS
    all_rows = rows + wishes.express_rows
    spare = max(0, free - reserve(shape, all_rows))
    per_token = shape.bytes_per_token
    tokens = wishes.kv_tokens
    if tokens is None:
        share = wishes.kv_share or SHARES[device.type]
        tokens = min(int(spare * share) // per_token, all_rows * shape.context, MOST)
    elif tokens * per_token > spare:
        raise ModelError(
            f"Keys and values of {tokens:,} tokens take {_said(tokens * per_token)};"
            f" {_said(spare)} of memory are free for them.",
            param="kv_tokens",
        )
    least = min(LEAST, shape.context)
    if tokens < least:
        raise ModelError(
            f"There is memory for keys and values of {tokens:,} tokens, and one row needs"
            f" {least:,}: {_said(free)} are free once the model is loaded, each token takes"
            f" {per_token:,} bytes.",
            param="kv_tokens" if wishes.kv_tokens is not None else None,
        )
    if wishes.max_rows is None:
        rows = min(rows, max(1, tokens // LEAST_PER_ROW))
    return Sizes(tokens, tokens * per_token, rows, min(shape.context, tokens))


def reserve(shape: Shape, rows: int) -> int:
    """Bytes kept for a step's activations and for sampling."""
    logits = rows * shape.vocabulary * 4 * LOGITS_COPIES
    return logits + STEP_TOKENS * shape.width * 4 * WIDE_COPIES


def _said(size: int) -> str:
    return f"{size / MIB:,.1f} MiB" if size < 1024 * MIB else f"{size / 1024 / MIB:,.1f} GiB"
