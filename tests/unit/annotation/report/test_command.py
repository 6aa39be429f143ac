"""`penstock annotate report` as a user calls it."""

from __future__ import annotations

from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from penstock.commands.annotation import report
from penstock.errors import InvalidRequest

TABLE = (
    "id,text,label,probability,needs_review,error,truth\n1,a,yes,0.9,false,,yes\n2,b,,,true,no,\n"
)


@pytest.fixture
def app() -> typer.Typer:
    app = typer.Typer()
    report.register(app)
    return app


@pytest.fixture
def table(tmp_path: Path) -> Path:
    path = tmp_path / "out.csv"
    path.write_text(TABLE)
    return path


def test_prints_the_report_and_writes_the_page(app: typer.Typer, table: Path) -> None:
    html = table.with_suffix(".html")

    done = CliRunner().invoke(app, [str(table), "--gold", "truth", "--html", str(html)])

    assert done.exit_code == 0, done.output
    assert "1 of 2 rows labeled; 1 failed." in done.output
    assert "On 1 gold row, 100.0% are right" in done.output
    assert html.read_text("utf-8").startswith("<!doctype html>")


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--gold", "turth"], "no gold column 'turth'"),
        (["--task", "none.toml"], r"none\.toml"),
    ],
)
def test_what_is_wrong_is_named(
    app: typer.Typer, table: Path, more: list[str], message: str
) -> None:
    done = CliRunner().invoke(app, [str(table), *more])

    assert isinstance(done.exception, InvalidRequest)
    assert done.exception.param in {"gold", "task"}
    assert message.replace("\\", "") in done.exception.message


def test_the_page_does_not_replace_the_table(app: typer.Typer, table: Path) -> None:
    done = CliRunner().invoke(app, [str(table), "--html", str(table)])

    assert isinstance(done.exception, InvalidRequest)
    assert table.read_text() == TABLE
