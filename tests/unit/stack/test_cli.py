"""What a user can get wrong at the command line ends in one sentence."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
DATABASE = "postgresql://user:hunter2@127.0.0.1:1/none"


def penstock(*arguments: str, cwd: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {key: value for key, value in os.environ.items() if "PENSTOCK" not in key}
    return subprocess.run(
        [sys.executable, "-P", "-m", "penstock", *arguments],
        cwd=cwd,
        env=environment | {"PYTHONPATH": str(ROOT)} | variables,
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
    )


@pytest.mark.parametrize(
    ("command", "variables", "missing"),
    [
        ("serve", {}, "PENSTOCK_DATABASE__URL"),
        ("worker", {"PENSTOCK_DATABASE__URL": DATABASE}, "PENSTOCK_BROKER__URL"),
        ("dispatch", {"PENSTOCK_DATABASE__URL": DATABASE}, "PENSTOCK_BROKER__URL"),
        ("migrate", {}, "PENSTOCK_DATABASE__URL"),
        ("flower", {}, "PENSTOCK_BROKER__URL"),
    ],
)
def test_a_process_without_its_url_names_the_variable(
    command: str, variables: dict[str, str], missing: str, tmp_path: Path
) -> None:
    done = penstock(command, cwd=tmp_path, **variables)

    assert done.returncode == 1
    assert done.stderr.startswith(f"penstock: {missing} is not set")
    assert len(done.stderr.splitlines()) == 1
    assert "hunter2" not in done.stderr


def test_a_migration_without_its_database_is_one_sentence_without_the_password(
    tmp_path: Path,
) -> None:
    done = penstock("migrate", cwd=tmp_path, PENSTOCK_DATABASE__URL=DATABASE)

    assert done.returncode == 1
    assert done.stderr.startswith("penstock: The database cannot be migrated: connection to")
    assert len(done.stderr.splitlines()) == 1
    assert "hunter2" not in done.stderr


@pytest.mark.parametrize(
    ("arguments", "variables", "words"),
    [
        (["--model", "./nowhere"], {}, "There is no model at ./nowhere"),
        (["--model", "."], {}, "no config.json"),
        (["--model", ""], {}, "The name given by --model is empty"),
        (["--data-dir", "file"], {}, "file cannot be used: file exists"),
        ([], {"PENSTOCK_API__HOST": "0.0.0.0"}, "set PENSTOCK_API__KEYS"),
        ([], {"PENSTOCK_FLOWER__HOST": "0.0.0.0"}, "set PENSTOCK_FLOWER__BASIC_AUTH"),
    ],
)
def test_a_stack_that_cannot_start_says_why(
    arguments: list[str], variables: dict[str, str], words: str, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()

    done = penstock("up", *["--model", "fake"], *arguments, cwd=tmp_path, **variables)

    assert done.returncode == 1
    assert words in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert done.stdout == ""


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("PENSTOCK_MODEL__MAX_ROWS", "many"),
        ("PENSTOCK_LOG__LEVEL", "LOUD"),
        ("PENSTOCK_API", "{"),
    ],
)
def test_a_setting_that_is_wrong_is_named(name: str, value: str, tmp_path: Path) -> None:
    done = penstock("serve", cwd=tmp_path, **{name: value})

    assert done.returncode == 2
    assert name.rpartition("_")[2].lower() in done.stderr.lower()
    assert "Traceback" not in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_the_command_line_loads_nothing_heavy() -> None:
    code = (
        "import sys, penstock.cli\n"
        "heavy = {'torch', 'celery', 'fastapi', 'sqlalchemy', 'pydantic', 'redis', 'httpx2'}\n"
        "sys.exit(', '.join(heavy & sys.modules.keys()) or 0)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, check=False, capture_output=True, text=True
    )

    assert (done.returncode, done.stderr) == (0, "")
