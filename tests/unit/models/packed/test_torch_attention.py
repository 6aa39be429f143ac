"""Attention in plain torch equals the plain definition, wherever its keys are read."""

from __future__ import annotations

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from models.packed import torch_attention
from models.packed.layout import Layout
from models.packed.torch_attention import attend
from tests.unit.models.native.layouts import Block, lay_out, layouts, reference

decoding = st.builds(Block, st.integers(0, 150), st.just(1))
reading = st.builds(Block, st.integers(0, 70), st.integers(1, 80), st.none(), st.booleans())
unshared = st.builds(
    lambda decoding, reading: lay_out(decoding + reading, []),
    st.lists(decoding, min_size=1, max_size=8),
    st.lists(reading, max_size=2),
)


def far(
    layout: Layout, positions: int, window: int | None = None, softcap: float | None = None
) -> float:
    """The largest difference from the reference on random tensors."""
    generator = torch.Generator().manual_seed(0)
    query = torch.randn(layout.size, 6, 16, generator=generator).transpose(0, 1)
    keys = torch.randn(2, positions, 16, generator=generator)
    values = torch.randn(2, positions, 24, generator=generator)
    out = attend(query, keys, values, layout, scaling=0.25, window=window, softcap=softcap)
    expected = reference(query, keys, values, layout, 0.25, window, softcap)
    return float((out.double() - expected).abs().max())


@pytest.fixture(params=[0, 64 * 2 * 16 * 4, torch_attention.APART])
def apart(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """All decode rows have a call of their own, or those of 64 keys and more, or none."""
    monkeypatch.setattr(torch_attention, "APART", request.param)


@pytest.mark.usefixtures("apart")
@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    layout=unshared | layouts,
    window=st.sampled_from([None, 1, 11, 64]),
    softcap=st.sampled_from([None, 5.0]),
)
def test_every_layout_is_attended_to_as_defined(
    layout: tuple[Layout, int], window: int | None, softcap: float | None
) -> None:
    assert far(*layout, window, softcap) < 1e-5


@pytest.mark.usefixtures("apart")
def test_layers_that_cap_their_scores_share_a_layout_with_others() -> None:
    layout, positions = lay_out([Block(90, 1), Block(9, 1), Block(0, 5)], [])
    for softcap in (None, 5.0, None):
        assert far(layout, positions, softcap=softcap) < 1e-5


def test_a_long_row_is_read_where_it_lies(monkeypatch: pytest.MonkeyPatch) -> None:
    blocks = [Block(99, 1), Block(49, 1), Block(69, 1), Block(0, 20)]
    read = {}
    for most in (torch_attention.APART, 64 * 2 * 16 * 4):
        monkeypatch.setattr(torch_attention, "APART", most)
        monkeypatch.setattr(torch_attention, "GROUPS", 1)
        layout, positions = lay_out(blocks, [])
        assert far(layout, positions) < 1e-5
        read[most] = layout.notes["keys_read"]
    assert list(read.values()) == [3 * 100, 100 + 50 + 70]
