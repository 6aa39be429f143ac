"""The how-to page and the published schema follow the code."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path

import pytest
import typer
from pydantic import BaseModel
from typer.testing import CliRunner

from penstock.annotation.task.filters import all_filters
from penstock.annotation.task.operations import FUNCTIONS
from penstock.annotation.task.sandbox import TESTS
from penstock.annotation.task.task import Example, Review, Sampling, Task, Votes, task_from
from penstock.commands.annotation import schema

DOCS = Path(__file__).parents[4] / "docs"
PAGE = (DOCS / "how-to" / "task-file.md").read_text(encoding="utf-8")


def task_files(page: str) -> list[str]:
    found = re.findall(r"```toml\n(.*?)```", page, re.DOTALL)
    return [text for text in found if "template" in text]


FILES = task_files(PAGE)
PAGES = sorted((DOCS / "how-to").glob("*.md"))
ALL = [text for page in PAGES for text in task_files(page.read_text(encoding="utf-8"))]


@pytest.mark.parametrize("text", ALL, ids=range(len(ALL)))
def test_every_task_file_of_the_pages_is_sound(text: str) -> None:
    assert task_from(tomllib.loads(text)).columns


@pytest.mark.parametrize("part", [Task, Example, Sampling, Votes, Review])
def test_every_key_is_shown_by_example(part: type[BaseModel]) -> None:
    shown = "\n".join(FILES)

    missing = [
        key
        for key in part.model_fields
        if not re.search(rf"(^|[\[{{,. ]){key}(\]| =)", shown, re.MULTILINE)
    ]

    assert [key for key in missing if key != "list_labels"] == []


def test_every_filter_test_and_function_is_listed() -> None:
    words = set(re.findall(r"\w+", PAGE))
    filters = {name for name in all_filters() if not name.startswith(" ")}

    assert filters | TESTS | set(FUNCTIONS) <= words


def test_the_command_prints_the_schema_and_writes_it(tmp_path: Path) -> None:
    app = typer.Typer()
    schema.register(app)
    path = tmp_path / "task.schema.json"

    printed = CliRunner().invoke(app, [])
    written = CliRunner().invoke(app, ["--output", str(path)])

    assert (printed.exit_code, written.exit_code) == (0, 0)
    assert printed.stdout == path.read_text(encoding="utf-8")
    found = json.loads(printed.stdout)
    assert set(found["properties"]) == set(Task.model_fields)
    assert (found["required"], found["additionalProperties"]) == (["template"], False)
    undescribed = [key for key, value in found["properties"].items() if len(value) < 2]
    assert undescribed == []
