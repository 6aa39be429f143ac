"""What every runner must do, the fake one and the real ones alike."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM
from transformers.models.llama import LlamaConfig

from models.answers import Answers
from models.codec import TokenizerCodec
from models.fake import FakeRunner
from models.grammar import Grammars
from models.packed.model import PackedModel
from models.packed.runner import PackedRunner
from models.packed.store import Store
from models.packed.torch_attention import attend
from models.padded import PaddedRunner
from models.runner import (
    Constraint,
    FinishReason,
    ModelInfo,
    Purpose,
    Row,
    RowStep,
    Runner,
    SamplingParams,
    StepPlan,
)
from models.sampling import Sampler
from tests.unit.models.test_codec import byte_tokenizer
from tests.unit.models.tiny import Driver

CONTEXT = 64
VOCABULARY = 257  #: of the tokenizer of bytes
POSITIONS = 4_096


def byte_model() -> Any:
    """A random model of bytes without an end token."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=CONTEXT,
        initializer_range=0.3,
        pad_token_id=None,
        bos_token_id=None,
        eos_token_id=None,
    )
    auto: Any = AutoModelForCausalLM
    return auto.from_config(config, dtype=torch.float32).eval()


def padded() -> Runner:
    info = ModelInfo("bytes", 0, 0, "cpu", "fp32", CONTEXT, "padded")
    return PaddedRunner(byte_model(), byte_tokenizer(), info)


def packed() -> Runner:
    ready, tokenizer = PackedModel(byte_model(), attend), byte_tokenizer()
    slots, cpu, ends = 16, torch.device("cpu"), frozenset[int]()
    info = ModelInfo("bytes", 0, 0, "cpu", "fp32", CONTEXT, "packed", kv_tokens=POSITIONS)
    return PackedRunner(
        ready,
        Store(ready.layers, POSITIONS + 1, cpu),
        Sampler(slots, VOCABULARY, cpu, ends, Grammars(tokenizer, VOCABULARY, ends)),
        Answers(slots, tokenizer, ends),
        TokenizerCodec(tokenizer),
        info,
        slots,
    )


@pytest.fixture(
    params=[lambda: FakeRunner(context=CONTEXT), padded, packed], ids=["fake", "padded", "packed"]
)
def runner(request: pytest.FixtureRequest) -> Runner:
    make: Callable[[], Runner] = request.param
    return make()


def row(id: str, length: int = 9, *, stream: bool = False, branch: int = 0, **params: Any) -> Row:
    sampling = SamplingParams(**{"max_tokens": 4, "temperature": 0.0, **params})
    prompt = tuple(b"ab cd ef gh ij kl mn"[:length])
    return Row(id, prompt, sampling, stream=stream, branch=branch)


def run(runner: Runner, *rows: Row, number: int = 1) -> dict[str, RowStep]:
    """How each row ended; the text is all of it. Checks what is true of every step."""
    driver = Driver(runner)
    texts = driver.run(rows, number)
    for output in driver.outputs:
        assert output.tokens_read >= output.tokens_needed >= output.sampled
        assert output.keys_read >= output.keys_needed
    started = [id for output in driver.outputs for id in output.started]
    assert sorted(started) == sorted(row.id for row in rows)
    sampled = sum(output.sampled for output in driver.outputs)
    assert sampled == sum(step.tokens for step in driver.ended.values())
    for one in rows:
        assert one.stream or len(driver.said[one.id]) == 1
    return {
        id: RowStep(id, texts[id], step.finish, step.tokens, step.logprobs, step.scores)
        for id, step in driver.ended.items()
    }


def test_each_row_has_its_own_limit(runner: Runner) -> None:
    ended = run(runner, *(row(f"r{most}", max_tokens=most) for most in (1, 2, 3)))
    assert {id: step.tokens for id, step in ended.items()} == {"r1": 1, "r2": 2, "r3": 3}
    assert {step.finish for step in ended.values()} == {FinishReason.LENGTH}
    assert ended["r3"].text.startswith(ended["r2"].text.rstrip("\ufffd"))


def test_the_context_ends_a_row(runner: Runner) -> None:
    long = Row("long", (98,) * (CONTEXT - 1), SamplingParams(max_tokens=9))
    ended = run(runner, long)["long"]
    assert (ended.finish, ended.tokens) == (FinishReason.LENGTH, 1)


def test_a_text_is_the_same_as_a_whole_and_as_it_comes(runner: Runner) -> None:
    whole = run(runner, row("r", max_tokens=30), row("x"))["r"]
    assert run(runner, row("r", max_tokens=30, stream=True), number=2)["r"] == whole


def test_a_stop_text_is_hidden_and_is_the_reason(runner: Runner) -> None:
    whole = run(runner, row("r", max_tokens=20))["r"].text
    stop = whole[len(whole) // 2 :][:2]
    for number, stream in enumerate([False, True], 2):
        ended = run(runner, row("r", max_tokens=20, stop=(stop,), stream=stream), number=number)
        assert ended["r"].text == whole[: whole.index(stop)]
        assert ended["r"].finish is FinishReason.STOP


def test_the_same_row_says_the_same_again_whatever_its_neighbors(runner: Runner) -> None:
    drawn = row("r", temperature=1.0, seed=5)
    first = run(runner, drawn, number=1)["r"]
    others = [row("x"), row("y", temperature=1.5, presence_penalty=1.0)]
    assert run(runner, others[0], drawn, others[1], number=2)["r"] == first


def test_branches_of_one_prompt_draw_their_own(runner: Runner) -> None:
    rows = [row(f"r{n}", temperature=1.5, seed=5, max_tokens=9, branch=n) for n in range(4)]
    assert len({step.text for step in run(runner, *rows).values()}) > 1


def test_rows_keep_to_their_constraints_beside_free_ones(runner: Runner) -> None:
    choices = Constraint("choices", json.dumps(["yes", "no"]))
    schema = Constraint("json_schema", '{"type": "array", "maxItems": 0}')
    ended = run(
        runner,
        row("choices", constraint=choices, stream=True),
        row("free"),
        row("schema", max_tokens=50, constraint=schema),
        row("cut", max_tokens=1, constraint=Constraint("regex", "[a-c]{3} [a-c]{9}")),
    )
    assert ended["choices"].text in ("yes", "no")
    assert json.loads(ended["schema"].text) == []
    assert ended["choices"].finish is ended["schema"].finish is FinishReason.STOP
    assert ended["cut"].finish is FinishReason.LENGTH


def test_scored_rows_have_one_likelihood_for_each_label_and_no_text(runner: Runner) -> None:
    labels = tuple(runner.codec.encode_answer(text) for text in ("yes", "no", "yes sir", "yes"))
    scored = Row("s", row("s").prompt, SamplingParams(), Purpose.SCORE, labels)
    ended = run(runner, row("free"), scored)
    scores = ended["s"].scores
    assert (ended["s"].text, ended["s"].finish) == ("", FinishReason.STOP)
    assert len(scores) == 4
    assert scores[0] == pytest.approx(scores[3], abs=1e-4)
    assert 0 > scores[0] > scores[2]
    assert not ended["free"].scores


def test_logprobs_come_with_the_last_step_for_each_token(runner: Runner) -> None:
    ended = run(runner, row("two", logprobs=2), row("none"))
    found = ended["two"].logprobs
    assert len(found) == ended["two"].tokens
    assert all(one.logprob <= 0 and len(one.top) <= 2 for one in found)
    assert ended["none"].logprobs == ()


def test_dropped_rows_fall_silent_and_the_others_go_on(runner: Runner) -> None:
    driver = Driver(runner)
    rows = tuple(row(id, stream=True) for id in "abc")
    driver.step(StepPlan(rows, micro_batch=1))
    before = driver.said.get("a")
    driver.step(StepPlan(drop=("a",), micro_batch=1))
    while driver.step(StepPlan(micro_batch=1)):
        pass
    assert driver.ended.keys() == {"b", "c"}
    assert driver.said.get("a") == before
    assert driver.texts["b"] == driver.texts["c"] == run(runner, row("b"), number=2)["b"].text


def test_rows_can_be_forgotten_at_any_time_and_twice(runner: Runner) -> None:
    runner.forget(1)
    Driver(runner).step(StepPlan((row("a"),), micro_batch=1))
    runner.forget(1)
    runner.forget(1)
    assert run(runner, row("a"), number=1)


def test_it_says_what_it_is(runner: Runner) -> None:
    assert runner.info.context == CONTEXT
    assert runner.info.runner in ("fake", "padded", "packed")
    assert runner.codec.encode_chat([("user", "hi")])


def test_the_packed_and_the_padded_runner_answer_alike() -> None:
    """Tokens of greedy and seeded rows are equal in fp32."""
    rows = [
        row("greedy", max_tokens=30),
        row("drawn", max_tokens=30, temperature=1.1, top_p=0.9, seed=1),
        row("punished", max_tokens=30, repetition_penalty=1.3, frequency_penalty=0.4),
        row("regex", max_tokens=30, constraint=Constraint("regex", "[a-z]{20}")),
    ]
    assert {id: step.text for id, step in run(packed(), *rows).items()} == {
        id: step.text for id, step in run(padded(), *rows).items()
    }
