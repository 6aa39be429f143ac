"""What voters are asked about a row, and how their answers are read."""

from __future__ import annotations

import json

import pytest

from penstock.annotation.records import Questions, Reading
from penstock.annotation.task.questions import voters
from penstock.annotation.task.task import Task, task_from
from penstock.client import Answer
from penstock.errors import InvalidRequest
from penstock.schemas.batch import BatchFields

PROPERTIES = {"name": {"type": "string"}, "price": {"type": "number"}, "n": {"type": "integer"}}
FIELDS = {"type": "object", "properties": PROPERTIES}


def first(task: Task) -> Questions:
    questions = voters(task)[0].questions
    assert questions is not None
    return questions


def scored(index: int, text: str, **probabilities: float) -> Answer:
    detail = {"scores": dict.fromkeys(probabilities, -1.0), "probabilities": probabilities}
    return Answer(index, text, detail=detail, tokens=(10, 1), reused=True)


def read(task: Task, *texts: str) -> Reading:
    return first(task).read([Answer(place, text) for place, text in enumerate(texts)])


def test_scored_labels_are_asked_for_once_and_draw_nothing() -> None:
    questions = first(task_from("T: {{ t }}", labels=["a", "b"], system="S", temperature=0.5))

    assert questions.body == {"choices": ["a", "b"], "mode": "score", "system": "S"}
    assert (questions.columns, questions.per_row) == (("t",), 1)
    assert questions.ask({"t": "x"}) == ["T: x\nAnswer with one of: a, b."]


@pytest.mark.parametrize(
    ("template", "more"),
    [
        ('{{ t }} {{ labels|join("/") }}', {}),
        ("Is {{ t }} b or a?", {}),
        ("{{ t }}", {"system": "Say a or b."}),
        ("{{ t }}", {"list_labels": False}),
    ],
)
def test_labels_are_listed_only_where_nothing_names_them(
    template: str, more: dict[str, object]
) -> None:
    [prompt] = first(task_from(template, labels=["a", "b"], **more)).ask({"t": "x"})

    assert "Answer with" not in str(prompt)


def test_a_word_that_has_a_label_in_it_does_not_name_it() -> None:
    [prompt] = first(task_from("About {{ t }}", labels=["a", "b"])).ask({"t": "x"})

    assert str(prompt).endswith("Answer with one of: a, b.")


def test_a_score_is_read_with_all_probabilities_and_tokens() -> None:
    reading = first(task_from("{{ t }}", labels=["a", "b"])).read([scored(0, "a", a=0.7, b=0.3)])

    assert (reading.value, reading.probabilities) == ("a", {"a": 0.7, "b": 0.3})
    assert reading.scores == {"a": -1.0, "b": -1.0}
    assert (reading.prompt_tokens, reading.completion_tokens, reading.reused) == (10, 1, True)


def test_several_scored_labels_are_a_question_each() -> None:
    questions = first(task_from("{{ t }}", labels=["x", "y"], several=True))

    assert (questions.per_row, questions.body) == (2, {"choices": ["yes", "no"], "mode": "score"})
    assert questions.ask({"t": "T"}) == [
        f'T\nDoes the label "{label}" apply? Answer yes or no.' for label in ("x", "y")
    ]
    reading = questions.read([scored(0, "yes", yes=0.9, no=0.1), scored(1, "no", yes=0.2, no=0.8)])
    assert (reading.value, reading.probabilities) == (["x"], {"x": 0.9, "y": 0.2})
    assert reading.prompt_tokens == 20


def test_a_template_may_ask_for_each_label_itself() -> None:
    questions = first(task_from("Is {{ t }} {{ label }}?", labels=["x", "y"], several=True))

    assert questions.ask({"t": "T"}) == ["Is T x?", "Is T y?"]


def test_several_written_labels_are_a_list_in_the_order_of_the_task() -> None:
    task = task_from("{{ t }}", labels=["x", "y", "z"], several=True, mode="decode")

    [prompt] = first(task).ask({"t": "T"})
    assert str(prompt).endswith('of: ["x", "y", "z"].')
    assert read(task, '["z", "x", "x"]').value == ["x", "z"]
    assert read(task, "[]").value == []
    for wrong in ('["q"]', '"x"', '["x"', "[[]]"):
        assert "no list of labels" in str(read(task, wrong).error)


def test_a_written_label_that_is_none_is_an_error_of_its_row() -> None:
    task = task_from("{{ t }}", labels=["x", "y"], mode="decode")

    assert read(task, " x\n").value == "x"
    assert read(task, "x y") == Reading(None, error="The answer 'x y' is none of the labels.")


def test_fields_are_all_asked_for_and_read_with_their_types() -> None:
    task = task_from("{{ t }}", fields=FIELDS)

    schema = first(task).body["response_format"]["json_schema"]["schema"]  # type: ignore[index]
    assert (schema["required"], schema["additionalProperties"]) == (["name", "price", "n"], False)
    assert read(task, '{"name": "x", "price": 2, "n": 3.0}').value == {
        "name": "x",
        "price": 2,
        "n": 3,
    }
    for text, reason in [
        ('{"name": "x"', "no complete JSON; `max_tokens` may be too small"),
        ("[1]", "no JSON object"),
        ('{"name": "x", "price": "2"}', "its 'price' is not a number"),
        ('{"n": true}', "its 'n' is not an integer"),
        ("[" * 100_000, "no complete JSON"),
    ]:
        assert reason in str(read(task, text).error)


def test_a_failed_prompt_is_the_error_of_its_row_and_its_tokens_count() -> None:
    questions = first(task_from("{{ t }}", labels=["x", "y"], several=True))

    reading = questions.read(
        [scored(0, "yes", yes=0.9, no=0.1), Answer(1, None, "too_long", "Too long.", tokens=(9, 0))]
    )

    assert (reading.value, reading.error, reading.prompt_tokens) == (
        None,
        "too_long: Too long.",
        19,
    )


def test_a_score_without_probabilities_is_an_error_of_its_row() -> None:
    assert "told no probabilities" in str(read(task_from("{{ t }}", labels=["a", "b"]), "a").error)


def test_examples_are_turns_before_the_question() -> None:
    examples = [{"columns": {"t": "E"}, "answer": ["y"]}]
    several = task_from("{{ t }}", labels=["x", "y"], several=True, examples=examples)
    fields = task_from(
        "{{ t }}", fields=FIELDS, examples=[{"columns": {"t": "E"}, "answer": {"n": 1}}]
    )

    prompts = first(several).ask({"t": "T"})
    [told] = first(fields).ask({"t": "T"})

    answers = [prompt[1] for prompt in prompts]
    assert answers == [{"role": "assistant", "content": word} for word in ("no", "yes")]
    assert told == [
        {"role": "user", "content": "E"},
        {"role": "assistant", "content": '{"n": 1}'},
        {"role": "user", "content": "T"},
    ]


def test_every_template_model_and_sample_votes_by_a_name_and_a_question_of_its_own() -> None:
    task = task_from(
        "{{ t }}",
        labels=["a", "b"],
        mode="decode",
        temperature=0.8,
        seed=5,
        model="m",
        votes={"samples": 2, "templates": ["Q {{ u }}"], "models": ["org/n"], "columns": ["other"]},
    )

    found = voters(task)

    assert [voter.name for voter in found[:4]] == [
        "template1_m_sample1", "template1_m_sample2",
        "template1_org_n_sample1", "template1_org_n_sample2",
    ]  # fmt: skip
    assert (len(found), found[-1].name, found[-1].column) == (9, "other", "other")
    asked = [voter.questions for voter in found if voter.questions is not None]
    assert [each.body["seed"] for each in asked] == [5, 6] * 4
    assert asked[2].body["model"] == "org/n"
    assert (asked[0].columns, asked[4].columns) == (("t",), ("u",))
    assert len({each.fingerprint for each in asked}) == 8


def test_a_fingerprint_changes_with_what_is_asked_and_with_nothing_else() -> None:
    task = task_from("{{ t }}", labels=["a", "b"])
    same = task_from(task, gold="g", name="n", review_below=0.5, temperature=1.0)
    other = task_from(task, labels=["a", "c"])

    assert first(same).fingerprint == first(task).fingerprint != first(other).fingerprint


@pytest.mark.parametrize(
    "more",
    [
        {"labels": ["a", "b"]},
        {"labels": ["a", "b"], "several": True},
        {"labels": ["a", "b"], "mode": "decode", "stop": ["\n"]},
        {"labels": ["a", "b"], "mode": "decode", "several": True},
        {"fields": FIELDS, "min_p": 0.1},
        {"text": True, "model": "m", "system": "s"},
    ],
)
def test_the_service_takes_every_body(more: dict[str, object]) -> None:
    body = dict(first(task_from("{{ t }}", **more)).body)

    BatchFields.model_validate(json.loads(json.dumps(body)))


def test_a_row_that_comes_out_empty_cannot_be_asked_about() -> None:
    with pytest.raises(InvalidRequest, match="comes out empty"):
        first(task_from("{{ t }}", labels=["a", "b"])).ask({"t": " \n"})
