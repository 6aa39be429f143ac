"""What is wrong with a table is said before anything runs, with its place."""

from __future__ import annotations

import pytest

from penstock.annotation.records import Record
from penstock.annotation.task.checks import Check, shared_first_tokens, shared_sentence
from penstock.annotation.task.task import task_from
from penstock.errors import InvalidRequest


def record(**row: object) -> Record:
    return Record(6, row, "line 7")


@pytest.mark.parametrize(
    ("more", "sentence", "param"),
    [
        ({}, "t.csv has no column 'text', which `template` names; it has: a, g.", "template"),
        ({"template": "{{ a }}", "gold": "gold"}, "no column 'gold', which `gold` names", "gold"),
        (
            {"template": "{{ a }}", "votes": {"columns": ["other"]}},
            "no column 'other', which `votes.columns` names",
            "votes.columns",
        ),
        (
            {"template": "{{ a }}", "votes": {"templates": ["{{ b }}"]}},
            "no column 'b', which `template` names",
            "template",
        ),
    ],
)
def test_a_column_that_is_not_there_is_named(
    more: dict[str, object], sentence: str, param: str
) -> None:
    task = task_from("{{ text }}", labels=["x", "y"], **more)
    check = Check(task, "t.csv")

    check.columns_of(())  # not known yet
    with pytest.raises(InvalidRequest, match=sentence) as caught:
        check.columns_of(["a", "g"])

    assert caught.value.param == param


FIELDS = {"type": "object", "properties": {"n": {"type": "integer"}}}


@pytest.mark.parametrize(
    ("more", "cell", "reason"),
    [
        ({"labels": ["x", "y"]}, "z", "the column 'g' has 'z', which is none of the labels"),
        ({"labels": ["x", "y"]}, "X", "the column 'g' has 'X'"),
        ({"labels": ["x", "y"], "several": True}, '["x", "q"]', "has 'q', which is none"),
        ({"fields": FIELDS}, "{", "has '{', which is no JSON object"),
        ({"fields": FIELDS}, {"m": 1}, "has 'm', which is none of the fields"),
    ],
)
def test_gold_that_is_no_answer_is_named_with_its_place(
    more: dict[str, object], cell: object, reason: str
) -> None:
    check = Check(task_from("{{ a }}", gold="g", **more), "t.csv")

    with pytest.raises(InvalidRequest) as caught:
        check.row(record(a="A", g=cell))

    assert caught.value.message.startswith("t.csv, line 7: ")
    assert reason in caught.value.message
    assert caught.value.param == "gold"


@pytest.mark.parametrize(
    ("more", "cell"),
    [
        ({"labels": ["1", "2"]}, " 1 "),
        ({"labels": ["1", "2"]}, 1),
        ({"labels": ["1", "2"]}, ""),
        ({"labels": ["1", "2"]}, None),
        ({"labels": ["x", "y"], "several": True}, "x, y"),
        ({"labels": ["x", "y"], "several": True}, []),
        ({"fields": FIELDS}, '{"n": 1}'),
        ({"text": True}, "anything"),
    ],
)
def test_gold_in_every_form_passes(more: dict[str, object], cell: object) -> None:
    Check(task_from("{{ a }}", gold="g", **more), "t.csv").row(record(a="A", g=cell))


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"a": "  "}, "The template comes out empty."),
        ({}, "'a' is undefined"),
        ({"a": {"b": 1}}, "has no attribute 'c'"),
    ],
)
def test_a_row_that_cannot_be_asked_about_is_named(row: dict[str, object], reason: str) -> None:
    template = "{{ a.c }}" if isinstance(row.get("a"), dict) else "{{ a }}"
    check = Check(task_from(template, text=True), "t.jsonl")

    with pytest.raises(InvalidRequest, match=f"^t.jsonl, line 7: .*({reason})"):
        check.row(record(**row))


def test_a_prompt_without_content_has_to_be_one() -> None:
    task = task_from("{{ a }}", labels=["x", "y"], content_free=["N/A", ""])

    with pytest.raises(InvalidRequest, match="`content_free` with '' in each column: ") as caught:
        Check(task, "t.csv")

    assert caught.value.param == "content_free"


def test_labels_that_begin_alike_are_said_and_the_scores_called_sound() -> None:
    pairs = shared_first_tokens({"a": [1, 2], "ab": [1, 3], "c": [4], "cd": [4, 5], "e": []})

    assert pairs == [("a", "ab"), ("c", "cd")]
    said = shared_sentence(pairs)
    assert said.startswith("Labels begin with the same token: 'a' and 'ab'; 'c' and 'cd'. Their")
    assert "and 2 more." in shared_sentence([("a", "b")] * 5)
    assert shared_first_tokens({"a": [1], "b": [2]}) == []
