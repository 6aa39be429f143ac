"""A layer in one call says what its parts say one after the other, to the last bit."""

from __future__ import annotations

import ctypes
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM
from transformers.models.llama import LlamaConfig
from transformers.models.mistral import MistralConfig

from models.native import attention, linear, speedups
from models.native.panels import PanelLinear
from models.packed import torch_attention
from models.packed.attention import Attend
from models.packed.layout import Layout
from models.packed.model import PackedModel, Running
from models.packed.store import Store
from tests.unit.models.native.sizes import SIZES
from tests.unit.models.packed.layouts import ARENA, steps

CONFIGS = {
    "llama": LlamaConfig(**SIZES),
    "with biases": LlamaConfig(**SIZES, attention_bias=True, mlp_bias=True),
    "window": MistralConfig(**SIZES, sliding_window=9),
    "scaled": LlamaConfig(**SIZES, head_dim=32),
}


@pytest.fixture(autouse=True)
def panels(native: ctypes.CDLL, monkeypatch: pytest.MonkeyPatch) -> None:
    """All products lie in panels."""
    monkeypatch.setattr(
        linear, "gain", lambda weight, ours, theirs, **more: 2.0 if ours is PanelLinear else 0.0
    )


def build(config: Any, dtype: torch.dtype = torch.float32, attend: Attend | None = None) -> Any:
    torch.manual_seed(0)
    loader: Any = AutoModelForCausalLM
    model = loader.from_config(config).to(dtype).eval()
    for name, weight in model.named_parameters():
        if name.endswith("bias"):
            torch.nn.init.normal_(weight)
    speedups.apply(model)
    attend = attention.load() if attend is None else attend
    assert attend is not None
    return PackedModel(model, attend)


def layers(packed: PackedModel) -> Any:
    return packed._model.model.layers


def run(packed: PackedModel, taken: list[Layout]) -> tuple[list[torch.Tensor], Store]:
    """The logits of all steps, and the arena."""
    torch.manual_seed(1)
    store = Store(packed.layers, ARENA, torch.device("cpu"))
    for tensor in (*store.keys, *store.values):
        tensor.normal_()
    with torch.inference_mode():
        return [packed.forward(layout, store) for layout in taken], store


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", list(CONFIGS))
def test_one_call_says_what_its_parts_say(
    monkeypatch: pytest.MonkeyPatch, name: str, dtype: torch.dtype
) -> None:
    taken = steps(7)
    taken[0].keep = taken[0].keep[:0]
    sizes = {(len(layout.keep) > 0, len(layout.keep) == layout.size) for layout in taken}
    assert sizes == {(True, True), (True, False), (False, False)}  # all, some and none are kept
    packed = build(CONFIGS[name], dtype)
    calls = 0
    for layer in layers(packed):
        in_one = layer._whole

        def counted(*given: Any, in_one: Any = in_one) -> torch.Tensor | None:
            nonlocal calls
            done: torch.Tensor | None = in_one(*given)
            calls += done is not None
            return done

        monkeypatch.setattr(layer, "_whole", counted)
    whole, arena = run(packed, taken)
    assert calls == 2 * len(taken)
    for layer in layers(packed):
        monkeypatch.setattr(layer, "_whole", None)
    parts, expected = run(packed, taken)
    assert all(torch.equal(*pair) for pair in zip(whole, parts, strict=True))
    pairs = zip((*arena.keys, *arena.values), (*expected.keys, *expected.values), strict=True)
    assert all(torch.equal(*pair) for pair in pairs)


def test_with_another_attention_its_parts_run_one_after_the_other() -> None:
    taken = steps(3)
    whole, _ = run(build(CONFIGS["llama"]), taken)
    others, _ = run(build(CONFIGS["llama"], attend=torch_attention.attend), taken)
    for ours, theirs in zip(whole, others, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    "change, error, words",
    [
        ({"write": torch.tensor([0, 1, ARENA, 3])}, IndexError, "outside"),
        ({"write": torch.tensor([0, 1, -1, 3])}, IndexError, "outside"),
        ({"own_start": np.full(4, ARENA - 3, dtype=np.int32)}, ValueError, "behind"),
    ],
)
def test_what_is_not_in_the_arena_is_refused(
    change: dict[str, Any], error: type[Exception], words: str
) -> None:
    packed = build(CONFIGS["llama"])
    layout = Layout.plain([5, 6, 7, 8], torch.device("cpu"))
    for name, value in change.items():
        setattr(layout, name, value)
    with pytest.raises(error, match=words):
        run(packed, [layout])


@torch.inference_mode()
@pytest.mark.parametrize("heads, size", [(2, 128), (4, 64)])
def test_an_arena_of_another_shape_is_left_to_the_parts(heads: int, size: int) -> None:
    packed = build(CONFIGS["llama"])
    shapes = [type(shape)(heads, size, size, shape.dtype) for shape in packed.layers]
    layout = Layout.plain([5, 6, 7, 8], torch.device("cpu"))
    step = Running(layout, Store(shapes, ARENA, layout.keep.device), packed._attend)
    cos = sin = torch.zeros(1, 4, size)
    assert layers(packed)[0]._whole(torch.zeros(1, 4, 256), cos, sin, 0, step, None) is None


@torch.inference_mode()
@pytest.mark.parametrize("hidden, dtype", [(128, torch.float32), (256, torch.bfloat16)])
def test_what_its_products_are_not_made_for_is_left_to_the_parts(
    hidden: int, dtype: torch.dtype
) -> None:
    packed = build(CONFIGS["llama"])
    shapes = [replace(shape, dtype=dtype) for shape in packed.layers]
    layout = Layout.plain([5, 6, 7, 8], torch.device("cpu"))
    step = Running(layout, Store(shapes, ARENA, layout.keep.device), packed._attend)
    cos = sin = torch.zeros(1, 4, 64, dtype=dtype)
    x = torch.zeros(1, 4, hidden, dtype=dtype)
    assert layers(packed)[0]._whole(x, cos, sin, 0, step, None) is None


def test_a_layer_with_a_product_elsewhere_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    small = CONFIGS["llama"].intermediate_size
    monkeypatch.setattr(
        linear,
        "gain",
        lambda weight, ours, theirs, **more: 2.0 if weight.shape[1] != small else 0.0,
    )
    assert all(layer._whole is None for layer in layers(build(CONFIGS["llama"])))
