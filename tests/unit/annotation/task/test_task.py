"""Task files: what may be in them, and what is said of a mistake."""

from __future__ import annotations

from pathlib import Path

import pytest

from penstock.annotation.records import Kind, Reading, Type, Verdict
from penstock.annotation.task.questions import cells
from penstock.annotation.task.task import Task, load_task, task_from
from penstock.errors import InvalidRequest

TEMPLATE = 'template = "{{ text }}"\n'
LABELS = TEMPLATE + 'labels = ["a", "b"]\n'
EXAMPLE = LABELS + "[[examples]]\n"


def written(folder: Path, text: str) -> Path:
    path = folder / "topics.toml"
    path.write_text(text, encoding="utf-8")
    return path


def names(task: Task) -> list[str]:
    return [column.name for column in task.columns]


def test_a_file_is_a_task_named_after_it(tmp_path: Path) -> None:
    task = load_task(written(tmp_path, LABELS + 'gold = "topic"\n[review]\nbelow = 0.7'))

    assert (task.name, task.kind, task.labels, task.gold) == (
        "topics",
        Kind.LABELS,
        ("a", "b"),
        "topic",
    )
    assert (task.gold, task.mode, task.review.below) == ("topic", "score", 0.7)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("template = ", "is no task file in TOML: Invalid value"),
        ('labels = ["a", "b"]', "needs the key 'template'"),
        (LABELS + 'lables = "a"', "unknown key 'lables'; did you mean 'labels'"),
        (
            LABELS + "[sampling]\ntemprature = 1",
            "'sampling.temprature'; did you mean 'temperature'",
        ),
        (LABELS + "[sampling]\ntemperature = 3", "key 'sampling.temperature': .*equal to 2"),
        (EXAMPLE + 'answer = 1\ncolumns = {text = "t"}', "key 'examples.0.answer'"),
        (EXAMPLE + 'answer = "c"\ncolumns = {text = "t"}', "'c', which is none of the labels"),
        (EXAMPLE + 'answer = "a"\ncolumns = {txt = "t"}', "`examples.0.columns` has no 'text'"),
        (LABELS + "text = true", "has more than one of `labels`, `fields` and `text"),
        (TEMPLATE, "needs one of `labels`, `fields` and `text"),
        ('template = "{text}"\ntext = true', "`template` names no column"),
        ('template = "{{ text"\ntext = true', "The template, line 1: unexpected end"),
        (TEMPLATE + 'labels = ["a", "a"]', "`labels` has 'a' twice"),
        (TEMPLATE + 'labels = ["a"]', "key 'labels': .*at least 2 items"),
        (TEMPLATE + 'labels = ["a", " "]', "key 'labels.1'"),
        (TEMPLATE + 'labels = "a,b"', r"key 'labels': it has to be a list, such as \["),
        ('template = ""\ntext = true', "key 'template': it is empty"),
        (TEMPLATE + '[fields]\ntype = "array"', "of type `object` with `properties`"),
        (
            TEMPLATE + '[fields]\ntype = "object"\n[fields.properties.error]\ntype = "string"',
            "property 'error', which is the name of another",
        ),
        (LABELS + "[votes]\nsamples = 3", '`votes.samples` needs mode = "decode" and'),
        (LABELS + 'mode = "decode"\n[votes]\nsamples = 3', "`sampling.temperature` above 0"),
        (LABELS + '[votes]\nmodels = ["m", "m"]', "`votes.models` names one twice"),
        (LABELS + 'gold = "g"\n[votes]\ncolumns = ["g"]', "'g', which is the gold column"),
        ("#" * 1_048_577, "larger than 1,048,576 bytes"),
        ("x = " + "[" * 5000, "is no task file in TOML"),
        (LABELS + '[votes]\ntemplates = ["no column"]', "`votes.templates.0` names no column"),
        (LABELS + 'mode = "decode"\n[review]\nbelow = 0.5', "`review.below` needs probabilities"),
        (TEMPLATE + "text = true\nseveral = true", "`several` needs labels"),
        (TEMPLATE + 'text = true\n[votes]\nmodels = ["m"]', "texts have no majority"),
        (TEMPLATE + 'text = true\n[votes]\ncolumns = ["c"]', "`votes.columns` needs labels"),
    ],
)
def test_a_mistake_is_one_sentence_with_file_and_key(
    tmp_path: Path, text: str, sentence: str
) -> None:
    path = written(tmp_path, text)

    with pytest.raises(InvalidRequest, match=sentence) as caught:
        load_task(path)

    assert caught.value.message.startswith(str(path))
    assert caught.value.param
    assert "\n" not in caught.value.message


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match=r"none\.toml cannot be read: no such file"):
        load_task(tmp_path / "none.toml")


def test_what_can_be_no_task_is_refused() -> None:
    with pytest.raises(InvalidRequest, match=r"is a file .* or a mapping, not a int"):
        task_from(42)  # type: ignore[arg-type]


def test_keywords_make_the_same_task_and_win_over_a_file(tmp_path: Path) -> None:
    path = written(tmp_path, LABELS)

    made = task_from("{{ text }}", labels=["a", "b"], name="topics")

    assert made.fingerprint == load_task(path).fingerprint
    changed = task_from(
        path, temperature=0.5, review_below=0.6, gold=None, **{"votes.models": ["m"]}
    )
    assert (changed.sampling.temperature, changed.review.below, changed.gold) == (0.5, 0.6, None)
    assert (changed.votes.models, changed.labels) == (("m",), ("a", "b"))
    assert changed.fingerprint != made.fingerprint


def test_another_output_takes_the_place_of_the_file_s(tmp_path: Path) -> None:
    path = written(tmp_path, LABELS)

    assert task_from(str(path), text=True).kind is Kind.TEXT
    assert task_from(load_task(path), labels=["c", "d"]).labels == ("c", "d")


def test_a_copy_is_checked_and_knows_its_own_members() -> None:
    task = task_from("{{ text }}", labels=["a", "b"])
    assert [member.model for member in task.members] == [None]

    assert [member.model for member in task.model_copy(update={"model": "m"}).members] == ["m"]
    with pytest.raises(InvalidRequest, match="more than one of"):
        task.model_copy(update={"text": True})


def test_a_dumped_task_is_the_same_task() -> None:
    task = task_from("{{ t }}", labels=["a", "b"], examples=[{"columns": {"t": 1}, "answer": "a"}])

    assert task_from(task.model_dump(mode="json", exclude_defaults=True)) == task
    assert Task.model_validate_json(task.model_dump_json()).fingerprint == task.fingerprint


def test_labels_add_label_certainty_votes_and_what_every_task_adds() -> None:
    last = ["needs_review", "error", "prompt_tokens", "completion_tokens"]
    sure = ["label", "probability", "entropy", "margin"]

    alone = task_from("{{ t }}", labels=["a", "b"])
    assert names(alone) == [*sure, *last]
    voted = task_from(
        alone,
        all_probabilities=True,
        prefix="x_",
        votes={"models": ["org/m"], "columns": ["other"]},
    )
    votes = ["probabilities", "agreement", "label_model", "label_org_m"]
    assert names(voted) == [f"x_{name}" for name in (*sure, *votes, *last)]


def test_fields_add_a_typed_column_each() -> None:
    properties = {
        "name": {"type": "string"},
        "price": {"type": ["number", "null"]},
        "count": {"$ref": "#/$defs/count"},
        "new": {"type": "boolean"},
        "kind": {"enum": ["x", "y"]},
        "tags": {"type": "array"},
        "label": {"anyOf": []},
    }
    schema = {"type": "object", "properties": properties, "$defs": {"count": {"type": "integer"}}}

    task = task_from("{{ t }}", fields=schema)

    kinds = [Type.TEXT, Type.NUMBER, Type.INTEGER, Type.TRUTH, Type.TEXT, Type.JSON, Type.JSON]
    assert list(task.types.items()) == list(zip(properties, kinds, strict=True))
    verdict = Verdict({"name": "n", "label": [1]}, needs_review=True, prompt_tokens=5)
    row = cells(task, verdict)
    assert list(row) == names(task)
    assert (row["name"], row["price"], row["label"]) == ("n", None, [1])
    assert (row["needs_review"], row["prompt_tokens"]) == (True, 5)


def test_a_row_s_cells_follow_its_verdict() -> None:
    task = task_from("{{ t }}", labels=["a", "b"], all_probabilities=True, votes={"models": ["m"]})
    verdict = Verdict(
        "a",
        probability=0.9,
        probabilities={"a": 0.9, "b": 0.1},
        agreement=0.5,
        votes=(Reading("a"), Reading(None, error="away")),
    )

    row = cells(task, verdict)

    assert list(row) == names(task)
    assert (row["label"], row["probability"], row["entropy"]) == ("a", 0.9, None)
    assert (row["probabilities"], row["label_model"], row["label_m"]) == (
        {"a": 0.9, "b": 0.1},
        "a",
        None,
    )
