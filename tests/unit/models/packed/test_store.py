"""The arena's memory."""

from __future__ import annotations

import pytest
import torch

from models.packed.store import LayerShape, Store
from models.runner import Region

CPU = torch.device("cpu")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_what_is_written_is_read_and_copied(dtype: torch.dtype) -> None:
    store = Store([LayerShape(2, 8, 4, dtype)] * 3, 10, CPU)
    assert store.bytes == 3 * 2 * (8 + 4) * 10 * dtype.itemsize
    key, value = torch.randn(2, 2, 8).to(dtype), torch.randn(2, 2, 4).to(dtype)
    store.write(1, torch.tensor([3, 4]), key, value)
    store.copy(Region(3, 2), 7)
    for start in (3, 7):
        assert torch.equal(store.keys[1][:, start : start + 2], key)
        assert torch.equal(store.values[1][:, start : start + 2], value)
    assert not store.keys[0].any() and not store.values[2].any()


def test_memory_that_cannot_be_had_is_told() -> None:
    with pytest.raises(MemoryError, match="memory"):
        Store([LayerShape(2, 64, 64, torch.float32)], 2**50, CPU)
