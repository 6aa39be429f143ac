"""The variable-length kernel's arguments: with a kernel in plain torch the results are those of the
plain attention, whatever a step is made of."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from models.packed import torch_attention
from models.packed.layout import Layout
from models.packed.varlen import VarlenAttend, load
from tests.unit.models.packed.kernels import reference
from tests.unit.models.packed.layouts import ARENA, steps

FLOATS = (torch.float32, torch.float16, torch.bfloat16)


def arena(heads: int = 4, dtype: torch.dtype = torch.float32) -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(0)
    keys, values = torch.randn(2, heads, ARENA, 16).to(dtype)
    return keys, values


@pytest.mark.parametrize("window", [None, 1, 3, 8, 25])
@pytest.mark.parametrize("kv_heads", [1, 2, 4])
def test_it_gives_what_plain_torch_gives(window: int | None, kv_heads: int) -> None:
    keys, values = arena(kv_heads)
    attend = VarlenAttend(reference, FLOATS)
    for layout in (layout for seed in range(4) for layout in steps(seed)):
        query = torch.randn(4, layout.size, 16)
        found = attend(query, keys, values, layout, scaling=0.3, window=window)
        wanted = torch_attention.attend(query, keys, values, layout, scaling=0.3, window=window)
        assert not attend.has_left(layout)
        torch.testing.assert_close(found, wanted, atol=2e-5, rtol=2e-5)


def test_rows_never_touch_keys_of_others() -> None:
    keys, values = arena()
    attend = VarlenAttend(reference, FLOATS)
    for layout in steps(1):
        query = torch.randn(4, layout.size, 16)
        seen = torch.zeros(ARENA, dtype=torch.bool)
        seen[layout.extra] = True
        for token in range(layout.size):
            for start, length in (
                (layout.prefix_start[token], layout.prefix_length[token]),
                (layout.own_start[token], layout.visible[token]),
            ):
                seen[start : start + length] = True
        poisoned = keys.masked_fill(~seen[:, None], torch.nan)
        found = attend(query, poisoned, values, layout, scaling=0.3)
        torch.testing.assert_close(found, attend(query, keys, values, layout, scaling=0.3))


def test_index_tensors_are_made_once_for_all_layers_of_a_window() -> None:
    calls: list[int] = []

    def spy(*args: Any, **named: Any) -> Any:
        calls.append(args[4].data_ptr())
        return reference(*args, **named)

    keys, values = arena()
    layout = Layout.plain([1] * 9, torch.device("cpu"))
    attend = VarlenAttend(spy, FLOATS)
    for window in (None, 4, None, 4):
        attend(torch.randn(4, 9, 16), keys, values, layout, scaling=1.0, window=window)
    assert calls[:2] == calls[2:] and calls[0] != calls[1]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_stays_within_its_noise(dtype: torch.dtype) -> None:
    keys, values = arena(dtype=dtype)
    for layout in steps(2):
        query = torch.randn(4, layout.size, 16).to(dtype)
        found = VarlenAttend(reference)(query, keys, values, layout, scaling=0.25)
        wanted = VarlenAttend(reference, FLOATS)(
            query.float(), keys.float(), values.float(), layout, scaling=0.25
        )
        assert found.dtype == dtype
        torch.testing.assert_close(found.float(), wanted, atol=3e-2, rtol=3e-2)


@pytest.mark.parametrize(
    ("dtype", "size", "softcap"),
    [(torch.float32, 16, None), (torch.float16, 20, None), (torch.float16, 16, 30.0)],
    ids=["fp32", "head size", "softcap"],
)
def test_what_the_kernel_cannot_do_goes_to_plain_torch(
    dtype: torch.dtype, size: int, softcap: float | None
) -> None:
    layout = Layout.plain([1] * 9, torch.device("cpu"))
    query, keys = torch.randn(4, 9, size).to(dtype), torch.randn(4, 20, size).to(dtype)
    attend = VarlenAttend(reference)
    found = attend(query, keys, keys, layout, scaling=0.3, softcap=softcap)
    plain = torch_attention.attend(query, keys, keys, layout, scaling=0.3, softcap=softcap)
    assert attend.has_left(layout)
    torch.testing.assert_close(found, plain)


def test_a_kernel_is_used_only_where_it_agrees_with_plain_torch() -> None:
    def first_come(*args: Any, **named: Any) -> Any:
        changed = (*args[:4], torch.zeros_like(args[4]), *args[5:])
        return reference(*changed, **named)

    def absent(*args: Any, **named: Any) -> Any:
        raise RuntimeError("no kernel for this device")

    cpu = torch.device("cpu")
    good = VarlenAttend(reference)
    assert load(cpu, torch.bfloat16, good) is good
    assert load(cpu, torch.bfloat16, VarlenAttend(first_come)) is None
    assert load(cpu, torch.bfloat16, VarlenAttend(absent)) is None
    assert load(cpu, torch.float32, good) is None


def test_a_step_has_each_kind_of_token() -> None:
    layouts = [layout for seed in range(4) for layout in steps(seed)]
    assert any(layout.has_extra for layout in layouts)
    assert any((np.diff(layout.blocks) == 1).all() for layout in layouts)
    assert any(len(np.unique(layout.prefix_length)) == 3 for layout in layouts)
