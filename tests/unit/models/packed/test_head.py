"""The likeliest tokens without all logits are the likeliest tokens, and nobody notices."""

from __future__ import annotations

import ctypes
from typing import Any

import pytest
import torch
from torch import nn

from models import host
from models.drawing import likeliest
from models.native import refine as native_refine
from models.native import speedups
from models.packed import head as heads
from models.packed.build import build
from models.packed.head import HALF_STEP, MOST, Refine, ScreenedHead, refine, screened
from models.packed.memory import Wishes
from models.packed.model import PackedModel
from models.packed.rough import Quantized, Rounded
from models.packed.runner import PackedRunner
from models.packed.torch_attention import attend
from models.runner import ModelInfo, Row, SamplingParams
from tests.unit.models.families import Packer, model
from tests.unit.models.tiny import CONTEXT, alone, greedy, prompts, tokenizer

#: Products of int8 are not exact on every CPU.
NOTE = f"the likeliest token screened in {'int8' if host.cpu_is_fast('int8') else 'bf16'}"
TYPES = [torch.float32, torch.bfloat16]


@pytest.fixture(autouse=True)
def _everything_is_worth_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """However slow the CPU, and however small the model."""
    int8 = host.cpu_is_fast("int8")
    monkeypatch.setattr(heads, "cpu_is_fast", lambda name: int8 or name != "int8")
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


@pytest.fixture(
    params=[(torch.float32, Rounded), (torch.float32, Quantized), (torch.bfloat16, Quantized)],
    ids=["float32-bf16", "float32-int8", "bfloat16-int8"],
)
def dtype(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> torch.dtype:
    """Of the weight, which is screened by one type."""
    chosen: torch.dtype = request.param[0]
    kind = request.param[1]
    if kind is Quantized and not host.cpu_is_fast("int8"):
        pytest.skip("products of int8 are not exact on this CPU")
    monkeypatch.setattr(heads, "KINDS", {chosen: (kind,)})
    return chosen


def made(weight: torch.Tensor, fast: Refine = refine) -> ScreenedHead:
    linear = nn.Linear(weight.shape[1], weight.shape[0], bias=False)
    linear.weight.data = weight
    head = screened(linear, fast, likeliest)
    assert head is not None
    return head


def below(head: ScreenedHead, x: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
    """How far below its row's greatest true logit each token's is, [N]; of float64."""
    logits = x.double() @ head._weight.double().T
    return logits.amax(dim=1) - logits.gather(1, tokens[:, None])[:, 0]


def rounding(dtype: torch.dtype, head: ScreenedHead, x: torch.Tensor) -> torch.Tensor:
    """How far that may be by what the type of the greatest rounds off, [N]."""
    greatest = (x.double() @ head._weight.double().T).amax(dim=1)
    return greatest.abs() * {torch.float32: 1e-5, torch.bfloat16: 2.0**-7}[dtype]


def found(head: ScreenedHead, x: torch.Tensor) -> torch.Tensor:
    """The likeliest tokens, which are looked after."""
    with torch.inference_mode():
        tokens = head.likeliest(x)
    assert (below(head, x, tokens) <= rounding(x.dtype, head, x)).all()
    return tokens


@pytest.mark.parametrize("vocabulary", [160, 512, 1300, 5000])
@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e4])
def test_it_is_the_likeliest(
    fast: Refine, dtype: torch.dtype, vocabulary: int, scale: float
) -> None:
    torch.manual_seed(vocabulary)
    head = made(torch.randn(vocabulary, 192).to(dtype), fast)
    x = torch.randn(70, 192) * scale
    x[:, 5] *= 40  # as trained models have it
    found(head, x.to(dtype))
    assert head._missed <= 70 // 4


def test_of_logits_that_bfloat16_takes_for_equal_it_is_the_first(fast: Refine) -> None:
    torch.manual_seed(0)
    weight = torch.randint(-9, 10, (2_000, 64)).bfloat16()  # of which all sums are exact
    weight[1_000:] = weight[:1_000]
    weight[1_000:, 0] += 1  # a little more than the same, or a little less
    x = torch.randint(-9, 10, (60, 64)).bfloat16()
    head = made(weight, fast)
    logits = (x.float() @ weight.float().T).bfloat16()
    assert (logits == logits.amax(dim=1, keepdim=True)).sum() > 70  # some have two
    assert found(head, x).tolist() == logits.float().argmax(dim=1).tolist()
    assert head._missed == 0


@pytest.mark.parametrize("kind", [Rounded, Quantized])
def test_no_rough_logit_is_off_by_more_than_it_says(
    kind: type[Rounded] | type[Quantized], dtype: torch.dtype
) -> None:
    torch.manual_seed(0)
    weight = (torch.randn(5_000, 192) * torch.rand(5_000, 1)).to(dtype)
    x = torch.randn(80, 192) * torch.logspace(-6, 6, 80)[:, None]
    x[::2, 7] *= 60
    x = x.to(dtype)
    with torch.inference_mode():
        rough, margin = kind(weight)(x)
    true = x.double() @ weight.double().T
    # Rows have units of their own: the one in which the greatest is what it is.
    unit = (true * rough.double()).sum(dim=1) / (rough.double() ** 2).sum(dim=1)
    lost = (rough.double() * unit[:, None] - true).abs() / unit[:, None]
    assert (lost <= margin[:, None] / 2 + rough.abs() * HALF_STEP + 0.02 * margin[:, None]).all()
    assert (margin < rough.float().amax(dim=1)).all()  # and it tells most of them apart


def test_one_that_a_smaller_type_would_not_find_is_found(fast: Refine, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    kinds = torch.randn(50, 256)
    x = (kinds + 0.5 * torch.randn(50, 256)).to(dtype)
    weight = kinds.repeat_interleave(20, dim=0)
    near = {torch.float32: 1e-3, torch.bfloat16: 2e-2}[dtype]
    weight += near * torch.randn_like(weight)  # twenty of each that it hardly tells apart
    head = made(weight.to(dtype), fast)
    with torch.inference_mode():
        rough = head.rough(x)[0].float().argmax(dim=1)
    assert (rough != found(head, x)).any()
    assert head._missed == 0


def test_too_many_that_are_too_near_are_all_made(fast: Refine, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    weight = torch.randn(1, 128) + 1e-5 * torch.randn(MOST + 200, 128)
    head = made(weight.to(dtype), fast)
    found(head, torch.randn(9, 128).to(dtype))
    assert head._missed == 9


def test_a_model_whose_logits_lie_too_near_is_not_screened_for_long(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(heads, "TRIED", 20)
    monkeypatch.setitem(heads.KINDS, torch.float32, (Rounded,))
    head = made(torch.ones(MOST + 200, 128))
    x = torch.randn(10, 128)
    with torch.inference_mode():
        for _ in range(10):
            head.likeliest(x)
    assert head._seen == 30


def test_a_type_that_is_too_coarse_gives_way_to_a_finer_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if not host.cpu_is_fast("int8"):
        pytest.skip("products of int8 are not exact on this CPU")
    monkeypatch.setattr(heads, "TRIED", 20)
    weight = torch.ones(MOST + 200, 128) + 0.1 * torch.randn(MOST + 200, 1)
    weight[:, 0] = 0  # what this one is multiplied by makes the steps of int8 wide
    x = torch.rand(10, 128)
    x[:, 0] = 96
    head, exact = made(weight), (x @ weight.T).argmax(dim=1)
    names = []
    with torch.inference_mode():
        for _ in range(8):
            assert torch.equal(head.likeliest(x), exact)
            names.append(head.rough.name)
    assert names == ["int8"] * 3 + ["bf16"] * 5
    assert head._missed == 0


def test_the_first_of_equals(fast: Refine, dtype: torch.dtype) -> None:
    weight = torch.randn(700, 128)
    weight[60] = weight[650] = 3.0
    head = made(weight.to(dtype), fast)
    assert found(head, torch.ones(4, 128, dtype=dtype)).tolist() == [60] * 4


def test_a_row_of_nothing(fast: Refine, dtype: torch.dtype) -> None:
    head = made(torch.randn(700, 128).to(dtype), fast)
    assert found(head, torch.zeros(2, 128, dtype=dtype)).tolist() == [0, 0]


@pytest.mark.parametrize("odd", [float("nan"), float("inf"), float("-inf")])
def test_what_is_not_a_number_is_said(fast: Refine, dtype: torch.dtype, odd: float) -> None:
    head = made(torch.randn(700, 128).to(dtype), fast)
    one_of_four = torch.randn(4, 128)
    one_of_four[2, 7] = torch.nan
    for x in (one_of_four.to(dtype), torch.full((1, 128), odd, dtype=dtype)):
        with (
            torch.inference_mode(),
            pytest.raises(FloatingPointError, match="the model's output is not a number"),
        ):
            head.likeliest(x)


def test_numbers_near_the_end_of_the_range(fast: Refine, dtype: torch.dtype) -> None:
    head = made(torch.randn(700, 128).abs().to(dtype), fast)
    x = (torch.rand(3, 128) * 1e36).to(dtype)
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
        linear(dtype=torch.float16),
        linear(dtype=torch.float64),
        linear(odd=float("nan")),
        linear(odd=float("inf")),
        linear(odd=float("nan"), dtype=torch.bfloat16),
        linear(odd=float("inf"), dtype=torch.bfloat16),
        nn.Identity(),
    ],
    ids=[
        "bias",
        "float16",
        "float64",
        "nan",
        "infinite",
        "nan in bfloat16",
        "infinite in bfloat16",
        "no linear layer",
    ],
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


def built(
    family: str, dtype: torch.dtype = torch.float32, **changed: Any
) -> tuple[PackedRunner, Any]:
    """And the model as it was."""
    wide = {"hidden_size": 128, **changed}
    info = ModelInfo("tiny", 0, 0, "cpu", "fp32", CONTEXT, "padded")
    wishes = Wishes(max_rows=8, express_rows=2)
    ours, own = model(family, **wide).to(dtype), model(family, **wide).to(dtype)
    return build(ours, tokenizer(), info, wishes, speed_up=speedups.apply), own


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


def test_every_token_of_a_greedy_step_is_the_likeliest(
    dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    runner, _ = built("llama", dtype)
    head = head_of(runner)
    assert f"the likeliest token screened in {head.rough.name}" in runner.info.notes
    find, steps = head.likeliest, 0

    def watched(x: torch.Tensor) -> torch.Tensor:
        nonlocal steps
        steps += 1
        tokens = find(x)
        assert (below(head, x, tokens) <= rounding(dtype, head, x)).all()
        return tokens

    monkeypatch.setattr(head, "likeliest", watched)
    Packer(runner).run([greedy(f"r{n}", prompt, 12) for n, prompt in enumerate(prompts(8))])
    assert steps > 10 and head._seen > 12


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
