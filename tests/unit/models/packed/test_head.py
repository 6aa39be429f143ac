"""The likeliest tokens without all logits are the likeliest tokens, and nobody notices."""

from __future__ import annotations

import ctypes
from typing import Any

import pytest
import torch
from torch import nn

from models.drawing import likeliest
from models.native import refine as native_refine
from models.native import speedups
from models.packed import head as heads
from models.packed.build import build
from models.packed.head import MOST, Refine, ScreenedHead, refine, screened
from models.packed.memory import Wishes
from models.packed.model import PackedModel
from models.packed.runner import PackedRunner
from models.packed.torch_attention import attend
from models.runner import ModelInfo, Row, SamplingParams
from tests.unit.models.families import Packer, model
from tests.unit.models.tiny import CONTEXT, alone, greedy, prompts, tokenizer

NOTE = "the likeliest token screened in bfloat16"


@pytest.fixture(autouse=True)
def _everything_is_worth_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever CPU this is, and however small the model."""
    monkeypatch.setattr(heads, "cpu_is_fast", lambda name: True)
    monkeypatch.setattr(heads, "WORTH", 0)
    monkeypatch.setattr(heads, "LEAST", 0)
    monkeypatch.setattr(heads, "LEAST_IN_TORCH", 0)


@pytest.fixture(params=["torch", "native"])
def fast(request: pytest.FixtureRequest) -> Refine:
    if request.param == "torch":
        return refine
    request.getfixturevalue("native")
    loaded = native_refine.load()
    assert loaded is not None
    return loaded


def made(weight: torch.Tensor, fast: Refine = refine) -> ScreenedHead:
    linear = nn.Linear(weight.shape[1], weight.shape[0], bias=False)
    linear.weight.data = weight
    head = screened(linear, fast, likeliest)
    assert head is not None
    return head


def exact(head: ScreenedHead, x: torch.Tensor) -> torch.Tensor:
    """How far below its row's greatest true logit each token's is, [N]; of float64."""
    logits = x.double() @ head._weight.double().T
    with torch.inference_mode():
        chosen = head.likeliest(x)
    return logits.amax(dim=1) - logits.gather(1, chosen[:, None])[:, 0]


@pytest.mark.parametrize("vocabulary", [160, 512, 1300, 5000])
@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e4])
def test_it_is_the_likeliest(fast: Refine, vocabulary: int, scale: float) -> None:
    torch.manual_seed(vocabulary)
    head = made(torch.randn(vocabulary, 192), fast)
    x = torch.randn(70, 192) * scale
    x[:, 5] *= 40  # as trained models have it
    assert (exact(head, x) <= 1e-5 * scale * 40).all()
    assert head._missed == 0


def test_one_that_bfloat16_would_not_find_is_found(fast: Refine) -> None:
    torch.manual_seed(0)
    x = torch.randn(50, 256)
    weight = torch.randn(50, 256).repeat_interleave(20, dim=0)
    weight += 1e-3 * torch.randn_like(weight)  # twenty of each that bfloat16 hardly tells apart
    head = made(weight, fast)
    with torch.inference_mode():
        rough = head._rough(x.bfloat16()).float().argmax(dim=1)
        assert (rough != head.likeliest(x)).any()
    assert (exact(head, x) < 1e-4).all()
    assert head._missed == 0


def test_too_many_that_are_too_near_are_all_made(fast: Refine) -> None:
    torch.manual_seed(0)
    weight = torch.randn(1, 128) + 1e-5 * torch.randn(MOST + 200, 128)
    head = made(weight, fast)
    x = torch.randn(9, 128)
    assert (exact(head, x) < 1e-4).all()
    assert head._missed == 9


def test_a_model_whose_logits_lie_too_near_is_not_screened_for_long(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(heads, "TRIED", 20)
    head = made(torch.ones(MOST + 200, 128))
    x = torch.randn(10, 128)
    with torch.inference_mode():
        for _ in range(10):
            head.likeliest(x)
    assert head._seen == 30


def test_the_first_of_equals(fast: Refine) -> None:
    weight = torch.randn(700, 128)
    weight[60] = weight[650] = 3.0
    head = made(weight, fast)
    with torch.inference_mode():
        assert head.likeliest(torch.ones(4, 128)).tolist() == [60] * 4


@pytest.mark.parametrize("odd", [float("nan"), float("inf"), float("-inf")])
def test_what_is_not_a_number_is_said(fast: Refine, odd: float) -> None:
    head = made(torch.randn(700, 128), fast)
    one_of_four = torch.randn(4, 128)
    one_of_four[2, 7] = torch.nan
    for x in (one_of_four, torch.full((1, 128), odd)):
        with (
            torch.inference_mode(),
            pytest.raises(FloatingPointError, match="the model's output is not a number"),
        ):
            head.likeliest(x)


def test_numbers_near_the_end_of_the_range(fast: Refine) -> None:
    head = made(torch.randn(700, 128).abs(), fast)
    x = torch.rand(3, 128) * 1e36
    with torch.inference_mode():
        assert torch.equal(head.likeliest(x), head(x).argmax(dim=1))


def linear(**changed: Any) -> nn.Linear:
    layer = nn.Linear(256, 300, bias=changed.get("bias", False))
    if changed.get("odd"):
        layer.weight.data[3, 3] = changed["odd"]
    return layer.to(changed.get("dtype", torch.float32))


@pytest.mark.parametrize(
    "layer",
    [
        linear(bias=True),
        linear(dtype=torch.bfloat16),
        linear(dtype=torch.float64),
        linear(odd=float("nan")),
        linear(odd=float("inf")),
        nn.Identity(),
    ],
    ids=["bias", "bfloat16", "float64", "nan", "infinite", "no linear layer"],
)
def test_a_layer_for_which_it_is_not_exact_is_left(layer: nn.Module) -> None:
    assert screened(layer, None, likeliest) is None


def test_it_takes_a_cpu_that_is_fast_and_memory_that_is_free(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert screened(linear(), None, likeliest) is not None
    monkeypatch.setattr(heads, "free_memory", lambda device: 2**19)
    assert screened(linear(), None, likeliest) is None
    monkeypatch.undo()
    monkeypatch.setattr(heads, "LEAST_IN_TORCH", 0)
    monkeypatch.setattr(heads, "cpu_is_fast", lambda name: False)
    assert screened(linear(), None, likeliest) is None


# ---- in a runner ------------------------------------------------------------------------------


def built(family: str, **changed: Any) -> tuple[PackedRunner, Any]:
    """And the model as it was."""
    wide = {"hidden_size": 128, **changed}
    info = ModelInfo("tiny", 0, 0, "cpu", "fp32", CONTEXT, "padded")
    wishes = Wishes(max_rows=8, express_rows=2)
    runner = build(model(family, **wide), tokenizer(), info, wishes, speed_up=speedups.apply)
    return runner, model(family, **wide)


def head_of(runner: PackedRunner) -> ScreenedHead:
    packed = runner._model
    assert isinstance(packed, PackedModel)
    assert isinstance(packed._head, ScreenedHead)
    return packed._head


@pytest.mark.parametrize("family", ["llama", "qwen3", "mistral", "phi3", "olmo2", "mixtral"])
@pytest.mark.parametrize("tied", [False, True])
def test_greedy_rows_say_what_they_say_alone(family: str, tied: bool) -> None:
    runner, own = built(family, tie_word_embeddings=tied)
    assert NOTE in runner.info.notes
    head = head_of(runner)
    rows = [greedy(f"r{number}", prompt, 12) for number, prompt in enumerate(prompts(8))]
    assert Packer(runner).run(rows) == {row.id: alone(own, row) for row in rows}
    assert head._seen > 12


@pytest.mark.parametrize(
    "family,changed",
    [
        ("gemma2", {"final_logit_softcapping": 3.0}),
        ("granite", {"logits_scaling": 3.3}),
        ("cohere", {"logit_scale": 0.07}),
    ],
)
def test_a_model_that_does_something_to_its_logits_keeps_its_own_layer(
    family: str, changed: dict[str, Any]
) -> None:
    runner, own = built(family, **changed)
    assert NOTE not in runner.info.notes
    row = greedy("r", prompts(1)[0])
    assert Packer(runner).run([row])["r"] == alone(own, row)


def test_a_row_that_wants_more_gets_its_logits_and_its_neighbors_their_tokens() -> None:
    runner, own = built("llama")
    first, second, third = prompts(3)
    rows = [greedy("a", first, 12), greedy("b", second, 3)]
    rows.append(Row("c", third, SamplingParams(max_tokens=6, temperature=0.0, logprobs=2)))
    packer = Packer(runner)
    assert packer.run(rows) == {row.id: alone(own, row) for row in rows}
    head = head_of(runner)
    assert 0 < head._seen < 12  # steps after the third row had ended


def test_a_head_hands_on_only_what_a_packed_step_asks_for() -> None:
    own = model("llama", hidden_size=128)
    head = screened(own.get_output_embeddings(), None, likeliest)
    assert head is not None
    ids = torch.arange(20)[None]
    with torch.inference_mode():
        before = own(input_ids=ids).logits
        own.set_output_embeddings(head)
        assert (own(input_ids=ids).logits - before).abs().max() < 1e-4
        own.set_attn_implementation("eager")
        assert PackedModel(own, attend).screens


def test_the_native_one_does_as_torch_on_shapes_that_are_not_its_own(native: ctypes.CDLL) -> None:
    fast = native_refine.load()
    assert fast is not None
    torch.manual_seed(0)
    x, weight = torch.randn(6, 40), torch.randn(900, 40)
    rough = (x @ weight.T).bfloat16()
    margin = torch.full((6,), 0.5)
    expected = (x @ weight.T).argmax(dim=1)
    for logits in (rough, rough.t().contiguous().t(), torch.cat((rough, rough), 1)[:, :900]):
        assert torch.equal(fast(logits, margin, x, weight), expected)
    assert fast(rough[:0], margin[:0], x[:0], weight).shape == (0,)
