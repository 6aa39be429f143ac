"""What replaces a model's layers says what they said."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from transformers import AutoModelForCausalLM
from transformers.models.gemma2 import Gemma2Config
from transformers.models.llama import LlamaConfig, modeling_llama
from transformers.models.qwen3 import Qwen3Config

from models.native import feed_forward, linear, norm, rotary, speedups
from models.native.linear import BlasLinear, LaidOut, PackedLinear, TorchLinear, prepack
from models.native.panels import PanelLinear

SIZES: dict[str, Any] = {
    "hidden_size": 256,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 64,
    "intermediate_size": 512,
    "vocab_size": 300,
}
FAMILIES = {
    "llama": LlamaConfig(**SIZES, attention_bias=True, mlp_bias=True),
    "tied": LlamaConfig(**SIZES, tie_word_embeddings=True),
    "qwen3": Qwen3Config(**SIZES),
    "gemma2": Gemma2Config(**SIZES),
}
FAR = {torch.float32: 1e-4, torch.bfloat16: 5e-2}


def build(family: str, dtype: torch.dtype) -> Any:
    torch.manual_seed(0)
    loader: Any = AutoModelForCausalLM
    return loader.from_config(FAMILIES[family]).to(dtype).eval()


def sped_up(family: str, dtype: torch.dtype) -> list[str]:
    """What was done to a model, which says the same after it."""
    model = build(family, dtype)
    ids = torch.arange(40)[None] % 300
    with torch.inference_mode():
        before = model(input_ids=ids, use_cache=False).logits
        done = speedups.apply(model)
        after = model(input_ids=ids, use_cache=False).logits
    assert (before - after).abs().max() < FAR[dtype] * before.abs().max()
    return done


@pytest.fixture(params=["onednn", "panels", "float32"])
def fastest(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Which product is the fastest one."""
    name = str(request.param)
    ours = {"onednn": None, "panels": PanelLinear, "float32": linear._wide}[name]

    def times(weight: torch.Tensor, one: object, other: object, new_sizes: bool = True) -> float:
        return 2.0 if one is ours and len(weight) % 32 == 0 else 0.0

    monkeypatch.setattr(linear, "gain", times)
    return name


@pytest.fixture
def onednn(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is the fastest one."""
    monkeypatch.setattr(linear, "gain", lambda weight, one, other, new_sizes=True: 0.0)


@pytest.mark.parametrize("dtype", list(FAR))
@pytest.mark.parametrize("family", list(FAMILIES))
def test_a_model_says_the_same_with_faster_layers(
    native: ctypes.CDLL, fastest: str, family: str, dtype: torch.dtype
) -> None:
    done = sped_up(family, dtype)
    told = [line for line in done if fastest in line]
    assert bool(told) == (fastest == "panels" or (fastest == "float32" and dtype is torch.bfloat16))
    # The gate of Gemma 2 is not a SiLU.
    assert len(done) - len(told) == (3 if family == "gemma2" else 5), done


@pytest.mark.usefixtures("no_compiler")
@pytest.mark.parametrize("dtype", list(FAR))
@pytest.mark.parametrize("family", list(FAMILIES))
def test_without_a_compiler_a_model_says_the_same_in_fewer_calls(
    family: str, dtype: torch.dtype
) -> None:
    done = sped_up(family, dtype)
    swapped = {line.removesuffix(" in fewer calls") for line in done if line.endswith("calls")}
    norms = {"llama": 5, "tied": 5, "qwen3": 9}.get(family)
    layers = {"2 feed-forward layers", f"{norms} norms", "2 decoder layers"}
    # The gate of Gemma 2 is not a SiLU, and its norms add 1 to their weights.
    assert swapped == (set() if family == "gemma2" else layers)


def test_applying_twice_changes_nothing_more(native: ctypes.CDLL) -> None:
    model = build("llama", torch.float32)
    told = [line for line in speedups.apply(model) if "their products" in line]
    assert speedups.apply(model) == ["rotary positions compiled", *told]


@pytest.mark.usefixtures("onednn")
def test_packed_layers_do_not_keep_the_weights_twice(native: ctypes.CDLL) -> None:
    model = build("llama", torch.float32)
    speedups.apply(model)
    kept = {name.split(".")[-2] for name, _ in model.named_parameters() if "weight" in name}
    assert not {name for name in kept if name.endswith(("proj", "head"))}


@pytest.mark.usefixtures("onednn")
def test_the_embedding_of_a_tied_head_stays() -> None:
    model = build("tied", torch.float32)
    weight = model.model.embed_tokens.weight.clone()
    prepack(model)
    assert isinstance(model.lm_head, LaidOut)
    assert torch.equal(model.model.embed_tokens.weight, weight)


@pytest.mark.usefixtures("onednn")
@pytest.mark.parametrize("dtype", list(FAR))
@pytest.mark.parametrize("rows", [1, 2, 16, 65, 300])
@pytest.mark.parametrize("bias", [False, True])
def test_a_packed_layer_equals_the_plain_one(dtype: torch.dtype, rows: int, bias: bool) -> None:
    torch.manual_seed(0)
    plain = nn.Sequential(nn.Linear(200, 333, bias=bias)).to(dtype)
    x = torch.randn(1, rows, 200).to(dtype)
    with torch.inference_mode():
        expected = plain(x)
        assert prepack(plain) == ["1 linear layers laid out"]
        assert (plain(x) - expected).abs().max() < FAR[dtype]


@pytest.mark.parametrize("kind", [linear._wide, BlasLinear])
def test_a_layer_in_bfloat16_can_compute_in_float32(kind: Callable[..., TorchLinear]) -> None:
    torch.manual_seed(0)
    weight, bias = torch.randn(96, 200).bfloat16(), torch.randn(96).bfloat16()
    x, other = torch.randn(1, 33, 200).bfloat16(), torch.randn(1, 33, 96).bfloat16()
    layer = kind(weight, bias)
    exact = x.double() @ weight.double().T + bias.double()
    for said, meant in ((layer(x), exact), (layer.plus(x, other), exact + other.double())):
        assert said.dtype is torch.bfloat16 and layer.is_wide
        assert (said.double() - meant).abs().max() < 4e-3 * meant.abs().max()


@pytest.mark.parametrize(
    "dtype, times, room, wide",
    [
        (torch.bfloat16, 1.2, 64, True),
        (torch.bfloat16, 1.04, 64, False),
        (torch.bfloat16, 1.2, 63, False),
        (torch.float32, 1.2, 64, False),
    ],
)
def test_twice_the_memory_is_taken_where_it_pays_and_there_is_room(
    monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype, times: float, room: int, wide: bool
) -> None:
    weight = torch.randn(64, 64).to(dtype)
    monkeypatch.setattr(
        linear, "gain", lambda w, a, b, new_sizes=True: times if a is linear._wide else 0.0
    )
    monkeypatch.setattr(linear, "free_memory", lambda device: room * weight.nbytes)
    layer = linear.lay_out(weight)
    assert isinstance(layer, PackedLinear) and layer.is_wide == wide


@pytest.mark.parametrize("times, blas", [(0.9, True), (0.8, False)])
@pytest.mark.parametrize("dtype", list(FAR))
def test_blas_is_taken_where_it_is_about_as_fast(
    monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype, times: float, blas: bool
) -> None:
    beside = {
        (BlasLinear, linear._wide): times,
        (BlasLinear, PackedLinear): 2.0,
        (linear._wide, PackedLinear): 2.0,
    }
    monkeypatch.setattr(linear, "gain", lambda w, a, b, new_sizes=True: beside.get((a, b), 0.0))
    model = nn.Sequential(nn.Linear(256, 256).to(dtype))
    assert isinstance(linear.lay_out(torch.zeros(256, 256, dtype=dtype)), BlasLinear) == blas
    done = prepack(model)
    # In float32 that is what it was before.
    assert bool(done) == (not blas or dtype is torch.bfloat16)
    assert isinstance(model[0], BlasLinear) == (blas and dtype is torch.bfloat16)


class Doubled(nn.Linear):
    """A subclass says something of its own."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        return 2 * super().forward(input)


@pytest.mark.parametrize(
    "layer",
    [nn.Linear(256, 256).half(), nn.Linear(256, 256).double(), nn.Linear(8, 8), Doubled(256, 256)],
    ids=["half", "double", "small", "subclass"],
)
def test_a_layer_that_would_not_gain_is_left_alone(layer: nn.Linear) -> None:
    model = nn.Sequential(layer)
    assert prepack(model) == []
    assert model[0] is layer


class OddRMSNorm(nn.Module):
    """Looks like one of ours and is not."""

    def __init__(self) -> None:
        super().__init__()
        self.weight, self.eps = nn.Parameter(torch.ones(64)), 1e-6

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.weight * x / x.abs().mean(-1, keepdim=True)


def test_a_norm_that_says_something_else_is_left_alone(native: ctypes.CDLL) -> None:
    model = nn.Sequential(OddRMSNorm())
    assert norm.swap(model, native) == []
    assert isinstance(model[0], OddRMSNorm)


@pytest.mark.parametrize("dtype", list(FAR))
@pytest.mark.parametrize("shape", [(1, 1, 64), (1, 700, 64), (2, 3, 5, 33)])
def test_a_norm_of_any_shape(
    native: ctypes.CDLL, dtype: torch.dtype, shape: tuple[int, ...]
) -> None:
    torch.manual_seed(0)
    theirs = modeling_llama.LlamaRMSNorm(shape[-1]).to(dtype)
    nn.init.normal_(theirs.weight)
    model, x = nn.Sequential(theirs), torch.randn(shape).to(dtype)
    with torch.inference_mode():
        expected = theirs(x)
        assert norm.swap(model, native) == ["1 norms compiled"]
        assert (model[0](x) - expected).abs().max() < FAR[dtype] * expected.abs().max()


def test_a_gate_of_a_size_that_is_no_multiple(native: ctypes.CDLL) -> None:
    config = LlamaConfig(**{**SIZES, "intermediate_size": 333})
    kind: Any = modeling_llama.LlamaMLP
    mlp = kind(config).eval()
    model, x = nn.Sequential(mlp), torch.randn(1, 70, 256)
    with torch.inference_mode():
        expected = mlp(x)
        assert feed_forward.swap(model, native) == ["1 feed-forward layers compiled"]
        assert (model[0](x) - expected).abs().max() < 1e-5


def test_rotary_positions_that_ours_cannot_do_are_theirs(native: ctypes.CDLL) -> None:
    asked = []

    def theirs(*arguments: Any, **named: Any) -> tuple[torch.Tensor, torch.Tensor]:
        asked.append(named)
        return arguments[0], arguments[1]

    ours = rotary.NativeRotary(native, theirs)
    q, k, cos = torch.ones(1, 4, 3, 64), torch.ones(1, 2, 3, 64), torch.ones(1, 3, 64)
    with torch.inference_mode():
        ours(q, k, cos, cos)
        assert not asked
        ours(q, k, cos, cos, unsqueeze_dim=2)
        ours(q[..., :16], k[..., :16], cos[..., :16], cos[..., :16])  # no whole vectors
        ours(q, k, cos[..., :32], cos[..., :32])  # a part of each head
        ours(q.expand(2, 4, 3, 64), k.expand(2, 2, 3, 64), cos, cos)
        ours(q.double(), k.double(), cos.double(), cos.double())
    ours(q, k, cos, cos)  # gradients are wanted
    assert len(asked) == 6
