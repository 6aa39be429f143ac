"""The compiled attention equals the plain definition, whatever the layout."""

from __future__ import annotations

import ctypes
import subprocess
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from models.native import build
from models.native.attention import NativeAttention, load
from models.native.library import declare
from models.packed import torch_attention
from models.packed.layout import Layout
from tests.unit.models.native.layouts import Block, lay_out, layouts, reference
from tests.unit.models.packed.layouts import ARENA, steps

FAR = {torch.float32: 1e-5, torch.bfloat16: 2e-2}
SIZES = (16, 64, 80, 128, 7, 33)

every_case = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def far(
    attend: NativeAttention,
    layout: Layout,
    positions: int,
    dtype: torch.dtype,
    *,
    heads: tuple[int, int] = (4, 2),
    sizes: tuple[int, int] = (64, 64),
    window: int | None = None,
    softcap: float | None = None,
    seed: int = 0,
) -> float:
    """The largest difference from the reference on random tensors."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator).to(dtype)

    query = normal(layout.size, heads[0], sizes[0]).transpose(0, 1)
    keys, values = normal(heads[1], positions, sizes[0]), normal(heads[1], positions, sizes[1])
    scaling = sizes[0] ** -0.5
    out = attend(query, keys, values, layout, scaling=scaling, window=window, softcap=softcap)
    expected = reference(query, keys, values, layout, scaling, window, softcap)
    assert out.shape == expected.shape
    assert out.dtype == dtype
    return float((out.double() - expected).abs().max())


@every_case
@given(
    layout=layouts,
    dtype=st.sampled_from(list(FAR)),
    group=st.integers(1, 8),
    sizes=st.tuples(st.sampled_from(SIZES), st.sampled_from(SIZES)),
    window=st.sampled_from([None, 1, 11, 37]),
    softcap=st.sampled_from([None, 5.0, 50.0]),
    seed=st.integers(0, 99),
)
def test_every_layout_is_attended_to_as_defined(
    native: ctypes.CDLL,
    layout: tuple[Layout, int],
    dtype: torch.dtype,
    group: int,
    sizes: tuple[int, int],
    window: int | None,
    softcap: float | None,
    seed: int,
) -> None:
    difference = far(
        NativeAttention(native),
        *layout,
        dtype,
        heads=(2 * group, 2),
        sizes=sizes,
        window=window,
        softcap=softcap,
        seed=seed,
    )
    assert difference < FAR[dtype]


@pytest.mark.parametrize("dtype", list(FAR))
def test_many_threads_say_what_one_says(native: ctypes.CDLL, dtype: torch.dtype) -> None:
    blocks = [Block(30 + i, 1, 0) for i in range(40)] + [Block(0, 200, 0), Block(5, 90, None, True)]
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        assert far(NativeAttention(native), *lay_out(blocks, [300]), dtype) < FAR[dtype]
    finally:
        torch.set_num_threads(before)


def test_one_key_head_for_very_many_query_heads(native: ctypes.CDLL) -> None:
    layout = lay_out([Block(3, 1), Block(0, 20)], [])
    assert far(NativeAttention(native), *layout, torch.float32, heads=(71, 1)) < 1e-5


def test_layers_with_other_heads_share_a_layout(native: ctypes.CDLL) -> None:
    layout, positions = lay_out([Block(9, 1, 0), Block(0, 5, 0)], [20])
    for heads in ((4, 2), (8, 1), (4, 2)):
        assert far(NativeAttention(native), layout, positions, torch.float32, heads=heads) < 1e-5


def test_scores_far_from_zero_neither_overflow_nor_vanish(native: ctypes.CDLL) -> None:
    layout, positions = lay_out([Block(100, 1)], [])
    query, keys = torch.full((1, 1, 16), 40.0), torch.randn(1, positions, 16)
    values = torch.randn(1, positions, 16)
    out = NativeAttention(native)(query, keys, values, layout, scaling=1.0)
    expected = reference(query, keys, values, layout, 1.0, None, None)
    assert (out.double() - expected).abs().max() < 1e-3


def test_a_number_that_is_none_shows_in_the_result(native: ctypes.CDLL) -> None:
    layout, positions = lay_out([Block(40, 1), Block(40, 1)], [])
    query, keys = torch.randn(1, 2, 64), torch.randn(1, positions, 64)
    keys[0, 20] = torch.nan  # seen by the first token alone
    out = NativeAttention(native)(query, keys, torch.randn(1, positions, 64), layout, scaling=1.0)
    assert out[0].isnan().all()
    assert not out[1].isnan().any()


def test_reading_behind_the_arena_is_refused(native: ctypes.CDLL) -> None:
    layout, _ = lay_out([Block(10, 1)], [])
    arena = torch.zeros(1, 10, 16)
    with pytest.raises(ValueError, match="behind the arena"):
        NativeAttention(native)(torch.zeros(1, 1, 16), arena, arena, layout, scaling=1.0)


def test_tensors_that_do_not_fit_are_refused(native: ctypes.CDLL) -> None:
    layout, positions = lay_out([Block(10, 1)], [])
    query, arena = torch.zeros(3, 1, 16), torch.zeros(2, positions, 16)
    for keys, values in ((arena, arena), (arena.bfloat16(), arena), (arena, arena[:, 1:])):
        with pytest.raises(ValueError, match="key"):
            NativeAttention(native)(query, keys, values, layout, scaling=1.0)


@pytest.mark.parametrize("window", [None, 7])
@pytest.mark.parametrize("dtype", FAR)
@pytest.mark.parametrize("compiled", [True, False])
def test_tokens_that_are_kept_see_alone_what_they_see_in_company(
    native: ctypes.CDLL, dtype: torch.dtype, window: int | None, compiled: bool
) -> None:
    attend = NativeAttention(native) if compiled else torch_attention.attend
    fewer = branched = 0
    for seed in range(4):
        keys, values = torch.randn(2, 2, ARENA, 64).to(dtype)
        for layout in steps(seed):
            kept = layout.kept()
            query = torch.randn(layout.size, 4, 64).to(dtype).transpose(0, 1)
            whole = attend(query, keys, values, layout, scaling=0.125, window=window)
            few = query[:, layout.keep]
            alone = attend(few, keys, values, kept, scaling=0.125, window=window)
            torch.testing.assert_close(alone, whole[layout.keep], atol=FAR[dtype], rtol=0.0)
            assert kept.tokens.equal(layout.tokens[layout.keep])
            assert kept.lengths().tolist() == layout.lengths()[layout.keep.numpy()].tolist()
            fewer += kept.size < layout.size
            branched += kept.has_extra and len(kept.blocks) - 1 < kept.size
    assert fewer
    assert branched


@pytest.mark.parametrize("compiled", [True, False])
def test_a_step_that_keeps_nothing_says_nothing(native: ctypes.CDLL, compiled: bool) -> None:
    attend = NativeAttention(native) if compiled else torch_attention.attend
    layout, positions = lay_out([Block(0, 9, 0), Block(0, 5, 0)], [20])
    layout.keep = torch.zeros(0, dtype=torch.int64)
    arena = torch.randn(2, positions, 64)
    out = attend(torch.zeros(4, 0, 64), arena, arena, layout.kept(), scaling=0.125)
    assert out.shape == (0, 4, 64)


def test_half_precision_is_left_to_torch(native: ctypes.CDLL) -> None:
    layout, positions = lay_out([Block(10, 1), Block(0, 7)], [])
    attend = load()
    assert attend is not None
    query = torch.randn(2, layout.size, 16).half()
    arena = torch.randn(2, positions, 16).half()
    out = attend(query, arena, arena, layout, scaling=0.25)
    expected = reference(query, arena, arena, layout, 0.25, None, None)
    assert (out.double() - expected).abs().max() < 1e-2


@pytest.mark.slow
def test_the_code_for_any_cpu_says_the_same(native: ctypes.CDLL, tmp_path: Path) -> None:
    flags = [flag for flag in build.FLAGS if not flag.startswith("-march")]
    made = tmp_path / "portable.so"
    sources = sorted(build.SOURCES.glob("*.cpp"))
    subprocess.run(["g++", *flags, *sources, "-o", made], check=True, timeout=100)
    attend = NativeAttention(declare(ctypes.CDLL(str(made))))
    blocks = [Block(70, 1, 0), Block(5, 1, 0), Block(3, 90, 0, True), Block(0, 33)]
    for dtype in FAR:
        for size in SIZES:
            layout, positions = lay_out(blocks, [130])
            for window, softcap in ((90, 20.0), (None, None)):
                difference = far(
                    attend,
                    layout,
                    positions,
                    dtype,
                    sizes=(size, size),
                    window=window,
                    softcap=softcap,
                )
                assert difference < FAR[dtype]
