"""Decoder layers as few calls: only where they are what they look like."""

from __future__ import annotations

import ctypes
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM
from transformers.models.llama import LlamaConfig
from transformers.models.mistral import MistralConfig
from transformers.models.olmo2 import Olmo2Config
from transformers.models.phi3 import Phi3Config
from transformers.models.qwen2 import Qwen2Config
from transformers.models.qwen3 import Qwen3Config

from models.native import feed_forward, layer, norm
from models.native.layer import NativeLayer, TorchLayer
from models.native.library import how
from tests.unit.models.native.sizes import SIZES


def build(config: Any, library: ctypes.CDLL | None) -> Any:
    torch.manual_seed(0)
    loader: Any = AutoModelForCausalLM
    model = loader.from_config(config).eval()
    feed_forward.swap(model, library)
    norm.swap(model, library)
    return model


@pytest.mark.parametrize(
    "config",
    [
        LlamaConfig(**SIZES, attention_bias=True),
        Qwen2Config(**SIZES),
        Qwen3Config(**SIZES, head_dim=64),
        MistralConfig(**SIZES, sliding_window=9),
    ],
    ids=lambda config: str(config.model_type),
)
def test_layers_of_the_family_are_swapped_and_say_the_same(
    either: ctypes.CDLL | None, config: Any
) -> None:
    model = build(config, either)
    ids = torch.arange(40)[None]
    with torch.inference_mode():
        before = model(input_ids=ids, use_cache=False).logits
        assert layer.swap(model, either) == [f"2 decoder layers {how(either)}"]
        after = model(input_ids=ids, use_cache=False).logits
    assert (before - after).abs().max() < 1e-4 * before.abs().max()
    made = TorchLayer if either is None else NativeLayer
    assert [type(one) for one in model.model.layers] == [made, made]
    window = getattr(config, "sliding_window", None)
    assert model.model.layers[0].sliding_window == (
        window if "mistral" in config.model_type else None
    )
    assert not [name for name, _ in model.named_parameters() if name.endswith("_proj.weight")]


@pytest.mark.parametrize(
    "config",
    [Olmo2Config(**SIZES), Phi3Config(**SIZES)],
    ids=lambda config: str(config.model_type),
)
def test_layers_of_another_make_are_left_alone(either: ctypes.CDLL | None, config: Any) -> None:
    model = build(config, either)
    kinds = [type(one) for one in model.model.layers]
    assert layer.swap(model, either) == []
    assert [type(one) for one in model.model.layers] == kinds


def test_a_layer_that_only_looks_like_one_is_left_alone(either: ctypes.CDLL | None) -> None:
    model = build(LlamaConfig(**SIZES), either)
    scaled, capped = model.model.layers[0], model.model.layers[1].self_attn
    add, attend = scaled.forward, capped.forward
    scaled.forward = lambda *given, **named: add(*given, **named) * 0.5
    capped.forward = lambda *given, **named: attend(*given, softcap=30.0, **named)
    assert layer.swap(model, either) == []
    ids = torch.arange(9)[None]
    model.set_attn_implementation("eager")
    with torch.inference_mode():
        assert model(input_ids=ids).logits.shape == (1, 9, 300)  # nothing was taken from it


def test_a_cache_is_refused(either: ctypes.CDLL | None) -> None:
    model = build(LlamaConfig(**SIZES), either)
    layer.swap(model, either)
    with pytest.raises(ValueError, match="no cache"):
        model(input_ids=torch.arange(9)[None], use_cache=True)
