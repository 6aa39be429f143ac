"""A constrained answer is what was asked for, whatever the model would rather say."""

from __future__ import annotations

import json
import re
import time
from typing import Any

import pytest
import torch

from models.answers import Answers
from models.constraints import MOST_BYTES, check_constraint, example, why_not
from models.grammar import Grammars
from models.runner import Constraint, FinishReason, Row, RowStep, SamplingParams
from models.sampling import Sampler
from penstock.errors import InvalidRequest
from tests.unit.models import tiny
from tests.unit.models.test_codec import byte_tokenizer

END = 256
VOCABULARY = 300  #: more than the tokenizer has, as models do
PERSON = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 12},
        "age": {"type": "integer", "minimum": 0, "maximum": 150},
        "tags": {"type": "array", "items": {"enum": ["a", "bc"]}, "maxItems": 3},
    },
    "required": ["name", "age", "tags"],
    "additionalProperties": False,
}
LABELS = ["positive", "negative", "neither", 'it\'s "fine"\n', "ünï 🎉", "neither nor"]


def choices(*labels: str) -> Constraint:
    return Constraint("choices", json.dumps(labels))


def schema(value: Any) -> Constraint:
    return Constraint("json_schema", json.dumps(value))


def run(
    constraints: list[Constraint | None],
    *,
    ends: tuple[int, ...] = (END,),
    max_tokens: int = 300,
    seed: int = 0,
    **params: Any,
) -> list[RowStep]:
    """The answers of a model that says random things."""
    tokenizer: Any = byte_tokenizer()
    slots, cpu = len(constraints), torch.device("cpu")
    grammars = Grammars(tokenizer, VOCABULARY, frozenset(ends))
    sampler = Sampler(slots, VOCABULARY, cpu, frozenset(ends), grammars)
    answers = Answers(slots, tokenizer, frozenset(ends))
    for slot, constraint in enumerate(constraints):
        chosen = SamplingParams(max_tokens, seed=seed, constraint=constraint, **params)
        row = Row(f"{slot}/{seed}", (1,), chosen)
        sampler.admit(slot, row, max_tokens)
        answers.admit(slot, row, max_tokens)
    torch.manual_seed(seed)
    live, ended = list(range(slots)), dict[int, RowStep]()
    while live:
        order = torch.tensor(live)
        sampled = sampler.choose(torch.randn(len(live), VOCABULARY) * 3, order)
        steps, over = answers.collect(order, sampled)
        sampler.release(over)
        ended |= {int(step.id.split("/")[0]): step for step in steps}
        live = [slot for slot in live if slot not in over]
    return [ended[slot] for slot in range(slots)]


@pytest.mark.parametrize("ends", [(END,), (), (END, 5)])
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_each_row_answers_by_its_own_constraint(ends: tuple[int, ...], temperature: float) -> None:
    pattern = r"[a-f]{2,5}-\d{3}(é|/)"
    for seed in range(6):
        asked = [choices(*LABELS), None, schema(PERSON), Constraint("regex", pattern)]
        label, _, person, matched = run(
            asked, ends=ends, seed=seed, temperature=temperature, top_p=1.0, max_tokens=400
        )
        assert label.text in LABELS
        assert re.fullmatch(pattern, matched.text)
        value = json.loads(person.text)
        assert value.keys() == {"name", "age", "tags"}
        assert 0 <= value["age"] <= 150
        assert {step.finish for step in (label, person, matched)} == {FinishReason.STOP}


def test_every_choice_can_come_and_the_likelier_ones_do() -> None:
    said = {run([choices("yes", "no", "maybe")], seed=seed)[0].text for seed in range(30)}
    assert said == {"yes", "no", "maybe"}


def test_an_answer_that_is_cut_says_so() -> None:
    (step,) = run([schema(PERSON)], max_tokens=5)
    assert (step.finish, step.tokens) == (FinishReason.LENGTH, 5)


def test_a_complete_answer_ends_without_another_token() -> None:
    (step,) = run([choices("ab")])
    assert (step.text, step.tokens, step.finish) == ("ab", 2, FinishReason.STOP)


def test_penalties_never_lead_out_of_the_constraint() -> None:
    (step,) = run([choices("aaaaaaaa")], frequency_penalty=2.0, repetition_penalty=5.0)
    assert step.text == "aaaaaaaa"


HOSTILE = {
    "remote": schema({"$ref": "http://169.254.169.254/latest"}),
    "file": schema({"$ref": "file:///etc/passwd"}),
    "endless": schema({"$ref": "#"}),
    "deep": Constraint("json_schema", '{"items":' * 3_000 + "{}" + "}" * 3_000),
    "deeper": Constraint("json_schema", '{"items":' * 300 + "{}" + "}" * 300),
    "false": schema(False),
    "a list": schema([1]),
    "no JSON": Constraint("json_schema", "{"),
    "not done": schema({"type": "array", "uniqueItems": True}),
    "contradiction": schema({"type": "integer", "minimum": 5, "maximum": 3}),
    "product": schema(
        {
            "allOf": [
                {"anyOf": [{"properties": {f"p{i}": {}, f"q{j}": {}}} for j in range(6)]}
                for i in range(9)
            ]
        }
    ),
    "large": schema({"enum": [f"value {n}" for n in range(9_000)]}),
    "unclosed": Constraint("regex", "(a"),
    "look-ahead": Constraint("regex", "(?=a)b"),
    "parentheses": Constraint("regex", "(" * 20_000 + "a" + ")" * 20_000),
    "nothing": Constraint("regex", r"[^\s\S]"),
    "empty": Constraint("regex", ""),
    "no choices": choices(),
    "an empty choice": choices("a", ""),
    "a number": Constraint("choices", "[1]"),
    "half a pair": Constraint("choices", r'["\ud800"]'),
    "a raw half": Constraint("regex", "\ud800"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_what_no_answer_can_meet_is_refused_at_once_with_the_field(name: str) -> None:
    constraint, began = HOSTILE[name], time.process_time()
    with pytest.raises(InvalidRequest) as refused:
        check_constraint(constraint)
    assert time.process_time() - began < 2
    field = "choices" if constraint.kind == "choices" else "response_format"
    assert refused.value.param == field
    assert len(refused.value.message) < 300


def test_what_many_lines_share_is_built_once_good_or_bad() -> None:
    built = why_not.cache_info().misses
    for _ in range(3):
        check_constraint(Constraint("regex", "shared{7}"))
        with pytest.raises(InvalidRequest):
            check_constraint(Constraint("regex", "(shared{7}"))
    assert why_not.cache_info().misses - built == 2


BOMBS = {
    "repeated": Constraint("regex", "a{4000000000}"),
    "nested": Constraint("regex", "((((a{1000}){1000}){1000}){1000})b"),
    "ambiguous": Constraint("regex", "(((.{1,100}a?){1,100}b?){1,100}){1,100}"),
    "alternatives": Constraint("regex", "|".join(f".*{n}.*" for n in range(2_000))),
    "items": schema({"type": "array", "minItems": 10**6, "items": {"const": "a" * 100}}),
    "letters": schema({"type": "string", "minLength": 10**7}),
    "constant": schema({"const": "a" * (MOST_BYTES - 100)}),
    "properties": schema({"properties": {f"p{n}": {"type": "string"} for n in range(1_800)}}),
    "recursive": schema(
        {"$defs": {"t": {"anyOf": [{"type": "array", "items": {"$ref": "#/$defs/t"}}, {}]}},
         "$ref": "#/$defs/t"}
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", BOMBS)
def test_what_is_large_takes_bounded_time_and_ends(name: str) -> None:
    began = time.process_time()
    check_constraint(BOMBS[name])
    (step,) = run([BOMBS[name]], max_tokens=40)
    assert step.finish is not None
    assert time.process_time() - began < 5


def test_a_schema_cannot_change_how_it_is_read() -> None:
    lenient = {"type": "array", "uniqueItems": True, "x-guidance": {"lenient": True}}
    with pytest.raises(InvalidRequest):
        check_constraint(schema(lenient))


def test_white_space_in_json_has_an_end() -> None:
    for seed in range(10):
        (step,) = run([schema({"type": "array", "maxItems": 0})], seed=seed)
        assert (json.loads(step.text), step.finish) == ([], FinishReason.STOP)


def test_a_tokenizer_that_cannot_be_read_refuses_constraints_only() -> None:
    words: Any = tiny.tokenizer()
    sampler = Sampler(1, 160, torch.device("cpu"), frozenset(), Grammars(words, 160, frozenset()))
    with pytest.raises(InvalidRequest, match="tokenizer"):
        sampler.admit(0, Row("r", (1,), SamplingParams(constraint=choices("w3"))), 5)
    sampler.admit(0, Row("r", (1,), SamplingParams()), 5)


def test_examples_meet_their_constraint() -> None:
    text, whole = example(schema(PERSON))
    assert (json.loads(text).keys(), whole) == ({"name", "age", "tags"}, True)
    text, whole = example(Constraint("regex", r"[a-c]{3}-\d+"))
    assert whole
    assert re.fullmatch(r"[a-c]{3}-\d+", text)
    assert not example(Constraint("regex", "a{5000}"))[1]
