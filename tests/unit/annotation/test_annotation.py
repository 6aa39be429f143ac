"""From the table to the output: what is sent, what is written, and what is refused before."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from penstock.annotation.files import writing
from penstock.annotation.plan import AnswerColumns, Plan, counted, parse_choices
from penstock.errors import InvalidRequest
from penstock.schemas.batch import JobStatus
from tests.support.service import Service, problem
from tests.unit.annotation.conftest import Annotate, Heard


def files_of(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_rows_and_answers_stand_side_by_side_in_input_order(
    annotate: Annotate, plan: Plan, service: Service
) -> None:
    summary = annotate()

    assert plan.output.read_text() == (
        "id,text,answer,error\n"
        '1,"a, b","echo: Say a, b",\n'
        "2,fail,,engine_error: It failed.\n"
        "3,c,echo: Say c,\n"
    )
    job = service.jobs["batch_1"]
    assert job.messages == ["Say a, b", "Say fail", "Say c"]
    assert job.fields == {"max_tokens": 5, "model": "tiny"}
    assert (summary.status, summary.rows, summary.failed) == (JobStatus.COMPLETED, 3, 1)
    assert summary.problem is None


def test_an_answer_outside_the_choices_is_kept_and_marked(
    annotate: Annotate, plan: Plan, service: Service
) -> None:
    answers = {"a, b": " yes\n", "fail": None, "c": "yes and no"}
    service.answer = lambda prompt: answers[prompt.removeprefix("Say ").partition("\n")[0]]

    summary = annotate(choices=("yes", "no"), mode="generate")

    assert service.jobs["batch_1"].fields["choices"] == ["yes", "no"]
    assert service.jobs["batch_1"].fields["mode"] == "generate"
    assert plan.output.read_text() == (
        "id,text,answer,error,in_choices\n"
        '1,"a, b"," yes\n",,true\n'
        "2,fail,,engine_error: It failed.,\n"
        "3,c,yes and no,,false\n"
    )
    assert summary.outside == 1


def test_a_scored_answer_has_its_probability_beside_it(
    annotate: Annotate, plan: Plan, service: Service
) -> None:
    service.answer = lambda prompt: None if "fail" in prompt else "yes"
    service.detail = lambda prompt: {"probabilities": {"yes": 0.87654321, "no": 0.12345679}}

    summary = annotate(choices=("yes", "no"))

    assert plan.output.read_text() == (
        "id,text,answer,error,in_choices,probability\n"
        '1,"a, b",yes,,true,0.876543\n'
        "2,fail,,engine_error: It failed.,,\n"
        "3,c,yes,,true,0.876543\n"
    )
    assert service.jobs["batch_1"].fields["mode"] == "score"
    assert (summary.failed, summary.outside) == (1, 0)


def test_choices_that_no_service_takes_are_refused_before_anything_is_sent(
    annotate: Annotate, service: Service
) -> None:
    with pytest.raises(InvalidRequest, match=r"choices\.1"):
        annotate(choices=("yes", "n" * 300))
    with pytest.raises(InvalidRequest, match="stop"):
        annotate(choices=("yes", "no"), fields={"stop": ["x"]})
    assert not service.jobs


def test_json_lines_to_csv_and_back(annotate: Annotate, tmp_path: Path) -> None:
    table = tmp_path / "in.jsonl"
    table.write_text('{"text": "ü", "n": 1}\n{"text": "x", "tags": ["a"]}\n')

    annotate(input=table)
    annotate(input=table, output=tmp_path / "out.ndjson")

    assert (tmp_path / "out.csv").read_text() == (
        'text,n,tags,answer,error\nü,1,,echo: Say ü,\nx,,"[""a""]",echo: Say x,\n'
    )
    lines = [json.loads(line) for line in (tmp_path / "out.ndjson").read_text().splitlines()]
    assert lines == [
        {"text": "ü", "n": 1, "answer": "echo: Say ü", "error": None},
        {"text": "x", "tags": ["a"], "answer": "echo: Say x", "error": None},
    ]


def test_a_lone_surrogate_comes_back_as_its_escape(annotate: Annotate, tmp_path: Path) -> None:
    table = tmp_path / "in.jsonl"
    table.write_text('{"text": "\\ud800 fail"}\n')

    annotate(input=table, output=tmp_path / "out.jsonl")

    written = json.loads((tmp_path / "out.jsonl").read_text())
    assert written["text"] == "\ud800 fail"


def test_the_delimiter_of_the_input_is_that_of_the_output(annotate: Annotate, plan: Plan) -> None:
    plan.input.write_text("id;text\n1;c\n")

    annotate()

    assert plan.output.read_text() == "id;text;answer;error\n1;c;echo: Say c;\n"


def test_a_second_question_goes_into_columns_of_its_own_name(
    annotate: Annotate, plan: Plan, tmp_path: Path
) -> None:
    annotate()
    second = {"input": plan.output, "output": tmp_path / "two.csv"}

    with pytest.raises(InvalidRequest, match=r"a column 'answer' already.*--answer-column"):
        annotate(**second)
    annotate(**second, columns=AnswerColumns("tone"))

    header = (tmp_path / "two.csv").read_text().partition("\n")[0]
    assert header == "id,text,answer,error,tone,tone_error"


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"template": "{no}"}, "has no column 'no'; it has: id, text."),
        ({"template": "{"}, "lone '{'"),
        ({"template": " "}, "The template is empty."),
        ({"template": "Say {{text}}"}, "The template names no column"),
        ({"output": "out.txt"}, "has to end in .csv"),
        ({"output": "none/out.csv"}, "is no folder that can be written"),
        ({"output": "in.csv"}, "are the same file"),
        ({"input": "none.csv"}, "none.csv does not exist."),
        ({"fields": {"max_tokens": 0}}, "max_tokens"),
    ],
)
def test_what_is_wrong_with_a_plan_is_said_before_anything_is_sent(
    annotate: Annotate, tmp_path: Path, service: Service, changes: dict[str, Any], sentence: str
) -> None:
    paths = {
        name: tmp_path / value for name, value in changes.items() if name in {"input", "output"}
    }
    with pytest.raises(InvalidRequest) as caught:
        annotate(**(changes | paths))

    assert sentence in caught.value.message
    assert service.seen == []
    assert files_of(tmp_path) == ["in.csv"]


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("", "in.csv has no rows."),
        ("id,text\n", "in.csv has no rows."),
        ("id,text\n1,2\n3\n", "line 3"),
    ],
)
def test_what_is_wrong_with_the_input_is_said_before_anything_is_sent(
    annotate: Annotate, plan: Plan, service: Service, content: str, sentence: str
) -> None:
    plan.input.write_text(content)

    with pytest.raises(InvalidRequest, match=sentence):
        annotate()

    assert service.seen == []


def test_a_json_line_without_the_column_is_named(annotate: Annotate, tmp_path: Path) -> None:
    table = tmp_path / "in.jsonl"
    table.write_text('{"text": "a"}\n\n{"txt": "b"}\n')

    with pytest.raises(InvalidRequest, match=r"line 3 has no column 'text'; it has: txt\."):
        annotate(input=table)


def test_a_refusal_of_the_service_is_shown_and_nothing_is_remembered(
    annotate: Annotate, plan: Plan, service: Service, tmp_path: Path
) -> None:
    service.faults.append(problem(422, "invalid_request", "At most 2 prompts.", "messages"))

    with pytest.raises(InvalidRequest, match=r"At most 2 prompts\."):
        annotate()

    assert files_of(tmp_path) == ["in.csv"]
    assert annotate(template="Tell {text}").rows == 3


def test_a_job_that_did_not_complete_writes_what_there_is_and_says_so(
    annotate: Annotate, plan: Plan, service: Service, heard: Heard
) -> None:
    service.hold = True
    heard.on_posted = lambda: service.finish("cancelled")

    summary = annotate()

    assert summary.problem is not None
    assert "is cancelled; without an answer: 1 of 3 rows" in summary.problem
    assert plan.output.exists()


def test_one_row_is_one_row(annotate: Annotate, plan: Plan, service: Service, heard: Heard) -> None:
    plan.input.write_text("id,text\n1,a\n")
    service.hold = True
    heard.on_posted = lambda: service.finish("cancelled")
    service.answer = lambda prompt: None

    problem = annotate().problem

    assert problem is not None
    assert "without an answer: 1 of 1 row (" in problem
    assert counted(1) == "1 row"
    assert counted(2_000) == "2,000 rows"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no full disk here")
def test_a_full_disk_is_a_sentence_with_the_path(tmp_path: Path) -> None:
    def fill() -> None:
        with writing(tmp_path / "out.csv"), Path("/dev/full").open("w") as full:
            full.write("x")

    with pytest.raises(InvalidRequest, match=r"out\.csv cannot be written: no space left"):
        fill()


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="no /proc here")
def test_an_output_where_no_file_can_be_made_is_a_sentence(
    annotate: Annotate, service: Service
) -> None:
    with pytest.raises(InvalidRequest, match=r"^/proc/.* (cannot be written|no folder)"):
        annotate(output=Path("/proc/out.csv"))

    assert service.jobs == {}


def test_an_input_that_changes_while_its_job_runs_is_never_written_beside_wrong_answers(
    annotate: Annotate, plan: Plan, heard: Heard, tmp_path: Path
) -> None:
    for content in ("id,text\n1,z\n2,fail\n3,c\n", "id,text\n1,z\n", "id,text\n" + "9,9\n" * 9):
        original = plan.input.read_text()
        heard.on_posted = partial(plan.input.write_text, content)
        with pytest.raises(InvalidRequest, match="has changed since its job began"):
            annotate(fresh=True)
        plan.input.write_text(original)

    assert not plan.output.exists()
    assert files_of(tmp_path) == ["in.csv", "out.csv.penstock.json"]


@pytest.mark.parametrize("text", ["", "a", "a,", "a,,b", "a,a"])
def test_choices_are_two_different_ones_at_least(text: str) -> None:
    with pytest.raises(InvalidRequest, match="--choices needs two or more"):
        parse_choices(text)
    assert parse_choices(" a , b c") == ("a", "b c")
