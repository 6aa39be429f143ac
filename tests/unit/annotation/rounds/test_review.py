"""Rows to people and back: each tool's own files, both ways."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from penstock.annotation.rounds.annotated import annotated
from penstock.annotation.rounds.manifest import manifest_of
from penstock.annotation.rounds.review.exporting import Exported, export
from penstock.annotation.rounds.review.importing import Import, Imported
from penstock.annotation.rounds.review.tools import Tool
from penstock.annotation.task.expression import Expression
from penstock.annotation.task.task import Task
from penstock.errors import InvalidRequest
from tests.unit.annotation.rounds.conftest import ANSWERS, ROWS, Annotate, cells
from tests.unit.annotation.rounds.people import (
    People,
    annotation,
    answer_by_suggestion,
    argilla,
    label_studio,
    label_studio_min,
    sheet,
)


def exported(out: Path, tool: Tool, file: Path, where: str = "needs_review") -> Exported:
    return export(annotated(out), tool, file, Expression.parse(where))


def imported(file: Path, tool: Tool, out: Path, output: Path, **more: Any) -> Imported:
    return Import(file, tool, annotated(out), output, **more).run()


ROUND_TRIPS = [
    pytest.param(
        Tool.LABELSTUDIO,
        label_studio(
            {
                1: [annotation(["bad"]), annotation(["bad"]), annotation(["good"])],
                2: [annotation(["so, so"])],
                3: [annotation(["good"], was_cancelled=True)],
            }
        ),
        id="labelstudio-json",
    ),
    pytest.param(
        Tool.LABELSTUDIO,
        label_studio_min({1: ["bad", "bad", "good"], 2: ["so, so"], 3: []}),
        id="labelstudio-json-min",
    ),
    pytest.param(
        Tool.ARGILLA,
        argilla(
            {
                1: [("bad", "submitted"), ("good", "submitted"), ("bad", "submitted")],
                2: [("so, so", "submitted"), ("good", "draft")],
                3: [("good", "discarded")],
            }
        ),
        id="argilla-json",
    ),
    pytest.param(
        Tool.ARGILLA,
        argilla({1: [("bad", "submitted")] * 2, 2: [("so, so", "submitted")]}, flat=True),
        id="argilla-flat",
    ),
    pytest.param(Tool.CSV, sheet({1: ["bad", "good", " bad "], 2: ["so, so"], 3: [""]}), id="csv"),
]


@pytest.mark.parametrize(("tool", "people"), ROUND_TRIPS)
def test_what_people_answer_becomes_gold_beside_the_row_they_saw(
    annotate: Annotate, tmp_path: Path, tool: Tool, people: People
) -> None:
    out, file, back = annotate(), tmp_path / "review", tmp_path / "back"
    before = out.read_bytes()
    done = exported(out, tool, file)
    people(file, back)
    found = imported(back, tool, out, tmp_path / "gold.csv", column="people")
    assert (done.rows, done.of) == (3, 4)
    assert cells(tmp_path / "gold.csv", "people") == ["", "bad", "so, so", ""]
    assert (found.rows, found.gold) == (4, 2)
    assert cells(tmp_path / "gold.csv", "text") == [row["text"] for row in ROWS]
    assert out.read_bytes() == before


def test_label_studio_gets_tasks_with_predictions_that_its_config_names(
    annotate: Annotate, tmp_path: Path
) -> None:
    done = exported(annotate(), Tool.LABELSTUDIO, tmp_path / "tasks.json")
    tasks = json.loads((tmp_path / "tasks.json").read_text())
    config = ElementTree.fromstring((tmp_path / "tasks.json.config.xml").read_text())
    choices, text = config.find("Choices"), config.find("Text")
    assert [path.name for path in done.files] == ["tasks.json", "tasks.json.config.xml"]
    assert choices is not None
    assert text is not None
    assert [choice.get("value") for choice in choices] == ["good", "bad", "so, so"]
    assert (choices.get("toName"), choices.get("choice")) == (text.get("name"), "single")
    assert set(tasks[0]["data"]) == {str(text.get("value"))[1:], "penstock_row"}
    prediction = tasks[0]["predictions"][0]
    assert (prediction["model_version"], prediction["score"]) == ("tiny", 0.4)
    result = prediction["result"][0]
    assert (result["from_name"], result["to_name"]) == (choices.get("name"), text.get("name"))
    assert result["type"] == "choices"
    assert result["value"] == {"choices": ["good"]}
    assert "predictions" not in tasks[2]  # the row failed: nothing to suggest


def test_argilla_gets_records_that_its_settings_describe(
    annotate: Annotate, tmp_path: Path
) -> None:
    exported(annotate(), Tool.ARGILLA, tmp_path / "records.json")
    records = json.loads((tmp_path / "records.json").read_text())
    settings = json.loads((tmp_path / "records.json.settings.json").read_text())
    assert set(records[0]["fields"]) == {field["name"] for field in settings["fields"]}
    assert records[0]["suggestions"] == {"label": {"value": "good", "score": 0.4, "agent": "tiny"}}
    question = settings["questions"][0]
    assert question["name"] == "label"
    assert question["settings"]["type"] == "label_selection"
    assert [option["value"] for option in question["settings"]["options"]] == list(
        ("good", "bad", "so, so")
    )


@pytest.mark.parametrize("tool", list(Tool))
def test_people_never_see_the_gold(annotate: Annotate, tmp_path: Path, tool: Tool) -> None:
    task = Task(template="{{ text }}", labels=("left", "right"), gold="truth", model="tiny")
    rows = [{"text": "a", "truth": "hidden-from-people"}]
    answers = [{"label": "left", "needs_review": True}]
    for path in exported(
        annotate(rows=rows, answers=answers, task=task), tool, tmp_path / "f"
    ).files:
        assert "hidden-from-people" not in path.read_text()


def test_several_labels_and_typed_fields_come_back_as_they_are_meant(
    annotate: Annotate, tmp_path: Path
) -> None:
    schema = {
        "type": "object",
        "properties": {
            "Kind": {"enum": ["a", "b"]},
            "tags": {"type": "array", "items": {"enum": ["x", "y", "z"]}},
            "open": {"type": "boolean"},
            "price": {"type": "number"},
            "who": {"type": "string"},
        },
    }
    task = Task(template="{{ text }}", fields=schema, model="tiny")
    said = {"Kind": "a", "tags": ["z"], "open": True, "price": 2.5, "who": "Ada"}
    out = annotate(
        rows=[{"text": "t"}], answers=[{**said, "needs_review": True}], task=task, name="out.jsonl"
    )
    for tool in Tool:
        file = tmp_path / f"f.{tool}"
        exported(out, tool, file)
        back, gold = tmp_path / f"b.{tool}", tmp_path / f"gold.{tool}.jsonl"
        answer_by_suggestion(tool, file, back)
        imported(back, tool, out, gold)
        assert [json.loads(str(cell)) for cell in cells(gold, "gold")] == [said]


def test_a_tie_is_left_open_and_an_answer_marked_as_truth_wins(
    annotate: Annotate, tmp_path: Path
) -> None:
    out, file, back = annotate(), tmp_path / "f", tmp_path / "b"
    exported(out, Tool.LABELSTUDIO, file)
    marked = annotation(["so, so"], ground_truth=True)
    label_studio(
        {
            1: [annotation(["bad"]), annotation(["good"])],
            2: [annotation(["bad"]), annotation(["bad"]), marked],
        }
    )(file, back)
    found = imported(back, Tool.LABELSTUDIO, out, tmp_path / "gold.csv", column="people")
    assert cells(tmp_path / "gold.csv", "people") == ["", "", "so, so", ""]
    assert (found.people.disputed, found.people.tied, found.people.skipped) == (1, 1, 1)


def test_a_second_review_keeps_the_gold_of_the_first(annotate: Annotate, tmp_path: Path) -> None:
    out, first, second = annotate(), tmp_path / "gold1.csv", tmp_path / "gold2.csv"
    exported(out, Tool.CSV, tmp_path / "f1")
    sheet({1: ["bad"]})(tmp_path / "f1", tmp_path / "b1")
    imported(tmp_path / "b1", Tool.CSV, out, first, column="people")
    exported(first, Tool.CSV, tmp_path / "f2", "needs_review and people == ''")
    sheet({2: ["good"]})(tmp_path / "f2", tmp_path / "b2")
    imported(tmp_path / "b2", Tool.CSV, first, second, column="people")
    assert cells(second, "people") == ["", "bad", "good", ""]
    assert cells(first, "people") == ["", "bad", "", ""]
    told = manifest_of(second)
    assert told is not None
    assert told.parent is not None
    assert told.parent.name == "gold1.csv"


def test_gold_can_go_into_the_input_for_a_whole_new_run(annotate: Annotate, tmp_path: Path) -> None:
    out, target = annotate(), tmp_path / "input-with-gold.csv"
    exported(out, Tool.CSV, tmp_path / "f")
    sheet({2: ["good"]})(tmp_path / "f", tmp_path / "b")
    imported(tmp_path / "b", Tool.CSV, out, target, column="people", into=tmp_path / "in.csv")
    assert target.read_text(encoding="utf-8").splitlines()[0] == "id,text,truth,people"
    assert cells(target, "people") == ["", "", "good", ""]


def test_a_table_that_changed_since_the_export_is_refused_by_its_row(
    annotate: Annotate, tmp_path: Path
) -> None:
    out = annotate()
    exported(out, Tool.CSV, tmp_path / "f")
    sheet({2: ["good"]})(tmp_path / "f", tmp_path / "b")
    moved = [ROWS[0], ROWS[2], ROWS[1], ROWS[3]]
    other = annotate("other.csv", rows=moved)
    with pytest.raises(InvalidRequest, match="is not the row that was exported"):
        imported(tmp_path / "b", Tool.CSV, other, tmp_path / "gold.csv", column="people")
    short = annotate("short.csv", rows=ROWS[:2], answers=ANSWERS[:2])
    with pytest.raises(InvalidRequest, match="has no row 2"):
        imported(tmp_path / "b", Tool.CSV, short, tmp_path / "gold.csv", column="people")
    assert not (tmp_path / "gold.csv").exists()


def test_an_annotated_table_that_was_edited_is_refused(annotate: Annotate) -> None:
    out = annotate()
    out.write_text(out.read_text(encoding="utf-8").replace("Grüße", "Gruß"), encoding="utf-8")
    with pytest.raises(InvalidRequest, match="has changed since it was written"):
        annotated(out)


@pytest.mark.parametrize(
    ("where", "reason"),
    [
        ("probability > 2", "No row of .* matches --where"),
        ("sure", "has no column 'sure', which --where names"),
    ],
)
def test_a_filter_of_nothing_writes_nothing(
    annotate: Annotate, tmp_path: Path, where: str, reason: str
) -> None:
    with pytest.raises(InvalidRequest, match=reason):
        exported(annotate(), Tool.ARGILLA, tmp_path / "f", where)
    assert not (tmp_path / "f").exists()


@pytest.mark.parametrize("tool", list(Tool))
def test_a_filter_that_fails_on_the_way_leaves_no_file(
    annotate: Annotate, tmp_path: Path, tool: Tool
) -> None:
    rows = [{"text": "a", "truth": "1"}, {"text": "b", "truth": "many"}]
    out = annotate(rows=rows, answers=[{"label": "good"}] * 2)
    with pytest.raises(InvalidRequest, match="many"):
        exported(out, tool, tmp_path / "f", "truth * 2 > 0")
    assert not [path for path in tmp_path.iterdir() if path.name.lstrip(".").startswith("f")]


def test_nothing_is_overwritten(annotate: Annotate, tmp_path: Path) -> None:
    out, there = annotate(), tmp_path / "f.config.xml"
    there.write_text("mine")
    with pytest.raises(InvalidRequest, match=r"f\.config\.xml exists already"):
        exported(out, Tool.LABELSTUDIO, tmp_path / "f")
    with pytest.raises(InvalidRequest, match=r"f\.config\.xml exists already"):
        imported(there, Tool.CSV, out, there)
    assert there.read_text() == "mine"


@pytest.mark.parametrize(
    ("tool", "text", "reason"),
    [
        (Tool.LABELSTUDIO, "{", "not valid JSON"),
        (Tool.LABELSTUDIO, "[3]", "item 1: not a JSON object"),
        (Tool.LABELSTUDIO, '[{"data": {"text": "a"}}]', "without 'penstock_row' in its data"),
        (Tool.ARGILLA, '[{"fields": {}}]', "a record without an id"),
        (Tool.ARGILLA, '[{"id": "9"}]', "'9' is not the id of a row"),
        (Tool.CSV, "penstock_row,text\n", "has no column 'your_label'"),
    ],
)
def test_a_file_that_is_not_of_the_tool_is_refused(
    annotate: Annotate, tmp_path: Path, tool: Tool, text: str, reason: str
) -> None:
    (tmp_path / "back").write_text(text)
    with pytest.raises(InvalidRequest, match=reason):
        imported(tmp_path / "back", tool, annotate(), tmp_path / "gold.csv", column="people")


def test_an_answer_that_is_no_label_and_a_column_that_is_taken_are_refused(
    annotate: Annotate, tmp_path: Path
) -> None:
    out = annotate()
    exported(out, Tool.CSV, tmp_path / "f")
    sheet({1: ["maybe"]})(tmp_path / "f", tmp_path / "b")
    with pytest.raises(InvalidRequest, match="label: 'maybe' is none of good, bad, so, so"):
        imported(tmp_path / "b", Tool.CSV, out, tmp_path / "g.csv", column="people")
    sheet({1: ["bad"]})(tmp_path / "f", tmp_path / "b")
    with pytest.raises(InvalidRequest, match="'label' is a column of the annotation"):
        imported(tmp_path / "b", Tool.CSV, out, tmp_path / "g.csv", column="label")
    with pytest.raises(InvalidRequest, match="The table came with a column 'truth'"):
        imported(tmp_path / "b", Tool.CSV, out, tmp_path / "g.csv", column="truth")
