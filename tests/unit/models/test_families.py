"""Families of models run packed as they run by themselves, or say why they do not."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from models.native import linear, speedups
from models.native.layer import NativeLayer
from models.packed.build import build
from models.packed.memory import Wishes
from models.packed.model import Unpackable
from models.packed.probe import Probe
from models.packed.runner import PackedRunner
from models.packed.torch_attention import attend
from models.runner import ModelInfo, Purpose, Row, SamplingParams
from tests.unit.models.families import PACKED, PADDED, Packer, model, packed
from tests.unit.models.tiny import CONTEXT, alone, greedy, prompts, tokenizer

LABELS = ((20, 21, 22), (20, 21, 23), (20, 30), (40,), (20, 21))
REASONS = {
    "falcon": "interface",
    "falcon-alibi": "interface",
    "bloom": "interface",
    "gptj": "interface",
    "gpt_oss": "s_aux",
    "phi3-longrope": "far on in its context",
}


@pytest.mark.parametrize("family", PACKED)
def test_logits_are_the_model_s_own_on_packed_steps_of_every_kind(family: str) -> None:
    made = model(family)
    before = made.config._attn_implementation
    assert len(Probe(made, CONTEXT).check(attend).layers) == 2
    assert made.config._attn_implementation != before


@pytest.mark.parametrize("family", PADDED)
def test_what_must_not_run_packed_says_why_and_stays_as_it_was(family: str) -> None:
    made = model(family)
    before = made.config._attn_implementation
    row = greedy("r", prompts(1)[0], 8)
    wanted = alone(model(family), row)
    with pytest.raises(Unpackable, match=REASONS[family]):
        Probe(made, CONTEXT).check(attend)
    assert made.config._attn_implementation == before
    assert alone(made, row) == wanted


@pytest.mark.parametrize("family", PACKED)
def test_greedy_tokens_are_the_unbatched_ones_while_rows_join_and_leave(family: str) -> None:
    rows = [
        greedy(f"r{number}", prompt, 4 + 7 * (number % 4))
        for number, prompt in enumerate(prompts(10))
    ]
    packer = Packer(packed(model(family)))
    for row in rows:
        while len(packer.texts) + 4 < int(row.id[1:]):  # until enough have ended
            packer.step()
        packer.add(row)
        packer.step()
    own = model(family)
    assert packer.run() == {row.id: alone(own, row) for row in rows}


def built(family: str, monkeypatch: pytest.MonkeyPatch) -> PackedRunner:
    """As the worker builds it, with every layer swapped however small."""
    monkeypatch.setattr(linear, "SMALLEST", 1)
    info = ModelInfo("tiny", 0, 0, "cpu", "fp32", CONTEXT, "padded")
    return build(model(family), tokenizer(), info, Wishes(max_rows=6), speed_up=speedups.apply)


@pytest.mark.usefixtures("either")
@pytest.mark.parametrize("family", PACKED)
def test_built_with_all_that_is_faster_a_family_answers_as_the_model(
    family: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = built(family, monkeypatch)
    rows = [greedy(f"r{number}", prompt, 10) for number, prompt in enumerate(prompts(6))]
    own = model(family)
    assert Packer(made).run(rows) == {row.id: alone(own, row) for row in rows}


def test_a_plain_layer_that_is_compiled_turns_and_stores_in_one_pass(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    own = model("llama")
    monkeypatch.setattr(linear, "SMALLEST", 1)
    speedups.apply(own)
    assert all(isinstance(one, NativeLayer) and one._place is not None for one in own.model.layers)


@pytest.mark.usefixtures("either")
@pytest.mark.parametrize("family", ["llama", "qwen3", "mistral", "gemma2"])
def test_built_so_it_reads_long_beginnings_and_scores_as_the_model(
    family: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    own, begin = model(family), tuple(prompts(1)[0] * CONTEXT)[:40]  # read in steps that keep none
    packer = Packer(built(family, monkeypatch), budget=16)
    shared = packer.add(Row("begin", begin, SamplingParams(), Purpose.PREFIX))
    packer.run()
    part = type(shared)(shared.start, len(begin))
    row = greedy("row", (*begin, 30, 31), 10)
    packer.add(row, part)
    packer.add(Row("scored", (*begin, 50), SamplingParams(), Purpose.SCORE, LABELS), part)
    assert packer.run()["row"] == alone(own, row)
    expect_scores(own, (*begin, 50), packer.scores["scored"])


@pytest.mark.parametrize("family", ["llama", "mistral", "gemma2", "gpt2"])
def test_rows_that_share_a_beginning_answer_as_without(family: str) -> None:
    begin, *rest = prompts(5, longest=30)
    rows = [greedy(f"r{number}", begin + tail) for number, tail in enumerate(rest)]
    packer = Packer(packed(model(family)), budget=64)
    shared = packer.add(Row("begin", begin, SamplingParams(), Purpose.PREFIX))
    part = type(shared)(shared.start, len(begin))
    for row in rows:
        packer.add(row, part)
    own = model(family)
    texts = packer.run()
    assert texts.pop("begin") == ""
    assert texts == {row.id: alone(own, row) for row in rows}


@pytest.mark.parametrize("family", ["llama", "mistral", "gemma2", "gpt2"])
def test_scores_are_the_log_likelihoods_of_unbatched_runs(family: str) -> None:
    prompt, other = prompts(2)
    packer = Packer(packed(model(family)))
    packer.add(greedy("beside", other))
    packer.step()
    packer.add(Row("r", prompt, SamplingParams(), Purpose.SCORE, LABELS))
    packer.run()
    expect_scores(model(family), prompt, packer.scores["r"])


def expect_scores(own: Any, prompt: tuple[int, ...], scores: tuple[float, ...]) -> None:
    """Those of LABELS after a prompt, each run alone."""
    for label, score in zip(LABELS, scores, strict=True):
        with torch.inference_mode():
            logs = own(torch.tensor([prompt + label])).logits[0].log_softmax(-1)
        wanted = sum(logs[len(prompt) - 1 + at, token] for at, token in enumerate(label))
        assert score == pytest.approx(float(wanted), abs=1e-3)
