"""What a step keeps, as a step of its own."""

from __future__ import annotations

import pytest
import torch

from models.packed.torch_attention import attend
from tests.unit.models.packed.layouts import ARENA, steps

HEADS, SIZE = 2, 16


@pytest.mark.parametrize("window", [None, 7])
@pytest.mark.parametrize("seed", range(4))
def test_tokens_that_are_kept_see_alone_what_they_see_in_company(
    seed: int, window: int | None
) -> None:
    torch.manual_seed(seed)
    keys, values = torch.randn(2, HEADS, ARENA, SIZE)
    fewer = branched = 0
    for layout in steps(seed):
        kept = layout.kept()
        query = torch.randn(2 * HEADS, layout.size, SIZE)
        whole = attend(query, keys, values, layout, scaling=0.25, window=window)
        alone = attend(query[:, layout.keep], keys, values, kept, scaling=0.25, window=window)
        torch.testing.assert_close(alone, whole[layout.keep])
        assert kept.tokens.equal(layout.tokens[layout.keep])
        assert kept.lengths().tolist() == layout.lengths()[layout.keep.numpy()].tolist()
        fewer += kept.size < layout.size
        branched += kept.has_extra and len(kept.blocks) - 1 < kept.size
    assert fewer
    assert branched
