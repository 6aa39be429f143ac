"""The look before a run, against the whole service."""

from __future__ import annotations

from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from examples.stdlib.stack import RunningStack
from penstock.client import Client
from penstock.commands.annotation import lint as command
from penstock.errors import InvalidRequest

LONG = "word " * 1_200  # more than the fake model's context
TASK = (
    "--template",
    "Sort this text: {{ text }}",
    "--labels",
    "good,goose",
    "--gold",
    "gold",
)


@pytest.fixture
def table(tmp_path: Path) -> Path:
    path = tmp_path / "table.csv"
    texts = [f"text {'word ' * number}" for number in range(30)] + [LONG, "same", "same", ""]
    path.write_text("text,gold\n" + "".join(f"{text},good\n" for text in texts))
    return path


def lint(stack: RunningStack, *arguments: str | Path) -> tuple[int, str]:
    app = typer.Typer(pretty_exceptions_enable=False)
    command.register(app)
    result = CliRunner().invoke(app, [*map(str, arguments), "--url", stack.api_url])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, " ".join(result.output.split())


def test_everything_is_told_and_the_run_is_not_begun(
    stack: RunningStack, table: Path, tmp_path: Path
) -> None:
    page = tmp_path / "lint.html"
    with Client(stack.api_url) as client:
        earlier = {job.request_id for job in client.jobs(limit=100)}

    code, said = lint(stack, table, *TASK, "--html", page)

    assert code == 0, said
    for part in (
        "Sort this text: text word",
        "Answer with one of: good, goose.",
        "Rows 34, 34 with gold",
        "Tokens of a prompt",
        "Shared beginning about",
        "Time",
        "80% interval, measured on 33 rows",
        "1 row will fail, longer than the model's context of 4,096 tokens: line 32",
        "1 row (2.9%) ask what another one asks: line 34 is line 33.",
        "The column 'text' is empty in 1 row (2.9%).",
        "Labels begin with the same token: 'good' and 'goose'.",
    ):
        assert part in said
    html = page.read_text()
    assert "<svg" in html
    assert "Sort this text" in html
    with Client(stack.api_url) as client:
        made = [job for job in client.jobs(limit=100) if job.request_id not in earlier]
    asked = [job.progress.total for job in made]
    assert max(asked) == 34, "the only job of the whole table counts its tokens"


def test_a_sample_is_counted_where_asked_and_nothing_measured(
    stack: RunningStack, table: Path
) -> None:
    code, said = lint(stack, table, *TASK, "--rows", "5", "--no-measure")

    assert code == 0
    assert "Tokens of a prompt (of 5 rows)" in said
    assert "interval" not in said


def test_answers_that_may_be_cut_are_told(stack: RunningStack, table: Path) -> None:
    options = ("--max-tokens", "4000", "--no-measure")
    code, said = lint(stack, table, "--template", "Say {{ text }}", *options)
    assert code == 0
    assert "may be cut: the prompt and an answer of 4,000 tokens do not fit" in said


def test_a_table_that_would_be_refused_ends_with_1_and_says_every_reason(
    stack: RunningStack, table: Path
) -> None:
    table.write_text("text,gold\na,good\nb,bad\nc,worse\n")
    code, said = lint(stack, table, *TASK)
    assert code == 1
    assert "line 3: the column 'gold' has 'bad', which is none of the labels." in said
    assert "line 4: the column 'gold' has 'worse', which is none of the labels." in said


def test_a_page_that_cannot_be_written_is_refused_before_anything_is_asked(
    stack: RunningStack, table: Path, tmp_path: Path
) -> None:
    with pytest.raises(InvalidRequest, match="is no folder"):
        lint(stack, table, *TASK, "--html", tmp_path / "none" / "lint.html")
    with pytest.raises(InvalidRequest, match="names the table itself"):
        lint(stack, table, *TASK, "--html", table)
