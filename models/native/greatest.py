"""The likeliest token of each row by the C++ of this folder: one pass over the logits, on all
cores."""

from __future__ import annotations

import torch

from models.drawing import Likeliest, likeliest
from models.native.library import DTYPES, library


def load() -> Likeliest | None:
    """None where the library cannot be had; the log says why."""
    loaded = library()
    if loaded is None:
        return None
    greatest = loaded.penstock_greatest

    def find(logits: torch.Tensor) -> torch.Tensor:
        if logits.dtype not in DTYPES or logits.device.type != "cpu" or logits.stride(1) != 1:
            return likeliest(logits)
        rows, size = logits.shape
        out = torch.empty(rows, dtype=torch.int64)
        greatest(
            logits.data_ptr(),
            logits.stride(0),
            out.data_ptr(),
            rows,
            size,
            logits.dtype is torch.bfloat16,
            torch.get_num_threads(),
        )
        return out

    return find
