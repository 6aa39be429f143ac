"""The commands of another round, as they are typed."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner, Result

from penstock.commands.annotation import diff, reproduce, rerun, review
from penstock.errors import InvalidRequest
from tests.unit.annotation.rounds.conftest import ModelService, cells


@pytest.fixture
def typed(service: ModelService, monkeypatch: pytest.MonkeyPatch) -> typer.Typer:
    monkeypatch.setenv("PENSTOCK_URL", service.url)
    monkeypatch.setenv("COLUMNS", "200")
    app = typer.Typer(pretty_exceptions_enable=False)
    for command in (diff, reproduce, rerun, review):
        command.register(app)
    return app


def run(app: typer.Typer, *words: object, status: int = 0) -> Result:
    done = CliRunner().invoke(app, [str(word) for word in words])
    if isinstance(done.exception, InvalidRequest):
        raise done.exception
    assert done.exit_code == status, done.output
    return done


def test_people_settle_what_failed_and_the_next_round_is_compared_by_their_gold(
    typed: typer.Typer, out: Path, tmp_path: Path
) -> None:
    sheet, back, gold, second = (
        tmp_path / name for name in ("sheet.csv", "back.csv", "gold.csv", "second.csv")
    )
    done = run(typed, "export-review", out, sheet, "--to", "csv", "--where", "error != ''")
    assert "2 of 4 rows to review." in done.output
    with sheet.open(encoding="utf-8-sig", newline="") as given, back.open("w", newline="") as taken:
        reader = csv.DictReader(given)
        writer = csv.DictWriter(taken, reader.fieldnames or [])
        writer.writeheader()
        writer.writerows({**line, "your_answer": "echo: Tell me more"} for line in reader)

    done = run(
        typed, "import-review", back, out, "--from", "csv", "--output", gold, "--column", "people"
    )
    assert "2 rows answered, 0 skipped" in done.output
    assert "2 of 4 rows have gold in 'people' now." in done.output

    template = "Tell me {{ text | replace('fail', 'more') }}"
    where = "people != ''"
    done = run(typed, "rerun", gold, "--where", where, "--output", second, "--template", template)
    assert "2 rows asked again, 0 failed." in done.output
    assert cells(second, "people")[1] == "echo: Tell me more"

    done = run(typed, "diff", out, second, "--gold", "people")
    assert "2 of 4 rows changed." in done.output
    assert "2 rows became right, 0 became wrong: no sign of a difference" in done.output


def test_a_run_is_reproduced_by_its_manifest_and_leaves_nothing_behind(
    typed: typer.Typer, out: Path, service: ModelService
) -> None:
    manifest = out.with_name("out.csv.manifest.json")
    there = sorted(out.parent.iterdir())
    done = run(typed, "reproduce", manifest)
    assert "4 of 4 rows have the same answer, 4 of them with the same other cells" in done.output
    assert sorted(out.parent.iterdir()) == there

    service.answer = lambda message: "other"
    done = run(typed, "reproduce", manifest, status=1)
    assert "0 of 4 rows have the same answer" in done.output
    run(typed, "reproduce", manifest, "--at-least", "0")


def test_label_studio_files_are_written_where_they_are_asked_for(
    typed: typer.Typer, out: Path, tmp_path: Path
) -> None:
    tasks = tmp_path / "tasks.json"
    run(typed, "export-review", out, tasks, "--to", "labelstudio")
    assert len(json.loads(tasks.read_text())) == 2
    assert "<TextArea" in tasks.with_name("tasks.json.config.xml").read_text()


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (("rerun", "out.csv", "--where", "error", "--output", "b.csv", "--set", "x"), "--set x"),
        (("rerun", "out.csv", "--where", "a b", "--output", "b.csv"), "no expression"),
        (("rerun", "in.csv", "--where", "id", "--output", "b.csv"), "no manifest beside it"),
        (("reproduce", "out.csv"), "has to end in"),
        (("diff", "out.csv", "none.csv"), "does not exist"),
    ],
)
def test_what_is_wrong_is_one_sentence(
    typed: typer.Typer,
    out: Path,
    monkeypatch: pytest.MonkeyPatch,
    words: tuple[str, ...],
    reason: str,
) -> None:
    monkeypatch.chdir(out.parent)
    with pytest.raises(InvalidRequest, match=reason):
        run(typed, *words)
