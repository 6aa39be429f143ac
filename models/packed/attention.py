"""What an attention backend is: one function over the arena. Knows no model and no row."""

from __future__ import annotations

from typing import Protocol

import torch

from models.packed.layout import Layout


class Attend(Protocol):
    """Attention of one layer. The step's keys and values are in the store already."""

    def __call__(
        self,
        query: torch.Tensor,
        keys: torch.Tensor,
        values: torch.Tensor,
        layout: Layout,
        *,
        scaling: float,
        window: int | None = None,
        softcap: float | None = None,
    ) -> torch.Tensor:
        """query [H, T, D], keys [H_kv, P, D], values [H_kv, P, D_v] -> [T, H, D_v].

        Query heads are grouped: head h reads key head h // (H // H_kv).
        """
        ...
