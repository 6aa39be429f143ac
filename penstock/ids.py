"""Identifiers: a readable prefix and a time-ordered uuid7. Knows nothing else."""

from __future__ import annotations

from typing import Literal

from uuid_utils import uuid7

Kind = Literal["batch", "chat", "conv", "msg", "boot", "req", "file", "evt", "whe", "whd"]


def new_id(kind: Kind) -> str:
    """A fresh identifier such as `batch_0193e1…`; later ones sort after earlier ones."""
    return f"{kind}_{uuid7().hex}"
