"""`penstock annotate`, `chat` and `status` on a running stack, and `annotate` interrupted."""

from __future__ import annotations

import csv
import json
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from examples.stdlib.stack import RunningStack
from penstock.client import Client
from tests.integration.annotate.conftest import Shell

pytestmark = pytest.mark.slow

LARGE = 6_000  # rows; some seconds of work even for the fake model


def write_table(path: Path, rows: int) -> None:
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "text"])
        writer.writerows([number, f'row {number},\n"ü"'] for number in range(rows))


def read_table(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def until(what: str, condition: Callable[[], object], limit: float = 60.0) -> None:
    deadline = time.monotonic() + limit
    while not condition():
        assert time.monotonic() < deadline, f"in vain: {what}"
        time.sleep(0.005)


def posted_id(state: Path) -> str | None:
    """The job of a ledger, None as long as there is none."""
    if not state.exists():
        return None
    parts = [part for line in json.loads(state.read_text())["lines"] for part in line["parts"]]
    found: str | None = parts[0]["request_id"] if parts else None
    return found


@pytest.fixture
def large(tmp_path: Path) -> tuple[str, ...]:
    """The arguments of an annotation that takes a while."""
    write_table(tmp_path / "in.csv", LARGE)
    options = ("--output", "out.csv", "--template", "Say {{ text }}", "--max-tokens", "8")
    return ("penstock", "annotate", "in.csv", *options)


def interrupt(process: subprocess.Popen[str]) -> tuple[int, str]:
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    return process.returncode, errors


def check_output(path: Path) -> None:
    rows = read_table(path)
    assert [row["id"] for row in rows] == [str(number) for number in range(LARGE)]
    assert all(row["answer"].startswith(f"echo: Say row {row['id']},") for row in rows)


def test_a_table_is_annotated_with_what_is_wrong_beside_what_is_right(
    shell: Shell, tmp_path: Path
) -> None:
    table = [{"text": "good"}, {"text": "nul \x00"}, {"text": "ü \ud800"}]
    (tmp_path / "in.jsonl").write_text("".join(json.dumps(row) + "\n" for row in table))

    status, output, errors = shell.run(
        "penstock", "annotate", "in.jsonl", "--output", "out.csv", "--template", "{{ text }}"
    )

    assert status == 0, errors
    rows = read_table(tmp_path / "out.csv")
    assert [row["error"].partition(":")[0] for row in rows] == ["", "invalid_text", "invalid_text"]
    assert rows[0]["answer"] == "echo: good"
    assert "3 rows, 2 failed" in output


def test_after_ctrl_c_the_job_goes_on_and_the_same_command_picks_it_up(
    shell: Shell, tmp_path: Path, large: tuple[str, ...]
) -> None:
    state = tmp_path / "out.csv.penstock.json"
    first = shell.start(*large)
    until("the job is posted", lambda: posted_id(state))

    status, errors = interrupt(first)
    job_id = posted_id(state)
    again, _, notes = shell.run(*large)

    assert status == 130
    assert f"Job {job_id} goes on by itself" in errors
    assert again == 0, notes
    assert "Picking up 1 job of an earlier run." in notes
    check_output(tmp_path / "out.csv")


def test_ctrl_c_around_the_upload_makes_one_job_in_the_end(
    shell: Shell, stack: RunningStack, tmp_path: Path, large: tuple[str, ...]
) -> None:
    command = (*large, "--seed", "7")
    state = tmp_path / "out.csv.penstock.json"
    with Client(stack.api_url) as client:
        before = len(client.jobs(limit=500))
        first = shell.start(*command)
        until("the upload has begun", state.exists)

        status, _ = interrupt(first)
        again, _, errors = shell.run(*command)

        assert status == 130
        assert again == 0, errors
        assert len(client.jobs(limit=500)) == before + 1
    check_output(tmp_path / "out.csv")


def test_with_cancel_ctrl_c_ends_the_job_and_the_same_command_goes_on_with_it(
    shell: Shell, stack: RunningStack, tmp_path: Path, large: tuple[str, ...]
) -> None:
    state = tmp_path / "out.csv.penstock.json"
    command = (*large, "--seed", "8", "--cancel")
    first = shell.start(*command)
    until("the job is posted", lambda: posted_id(state))

    status, errors = interrupt(first)

    assert (status, "its jobs are cancelled" in errors) == (130, True)
    with Client(stack.api_url) as client:
        job_id = posted_id(state)
        assert job_id is not None
        assert client.job(job_id).wait(60).status == "cancelled"
    again, _, errors = shell.run(*command)
    assert again == 0, errors
    assert posted_id(state) == job_id
    check_output(tmp_path / "out.csv")


def test_an_unfinished_run_is_read_from_another_terminal(
    shell: Shell, tmp_path: Path, large: tuple[str, ...]
) -> None:
    first = shell.start(*large, "--seed", "9")
    until("the job is posted", lambda: posted_id(tmp_path / "out.csv.penstock.json"))

    status, shown, errors = shell.run("penstock", "annotate", "partial", "out.csv")

    assert status == 0, errors
    assert f"of {LARGE:,} rows" in shown
    rows = read_table(tmp_path / "out.partial.csv")
    assert all(row["answer"].startswith(f"echo: Say row {row['id']},") for row in rows)
    assert first.communicate(timeout=100) and first.returncode == 0
    check_output(tmp_path / "out.csv")


def test_a_refusal_of_the_service_is_one_sentence(shell: Shell, tmp_path: Path) -> None:
    write_table(tmp_path / "in.csv", 3)
    arguments = ("annotate", "in.csv", "--output", "out.csv", "--template", "{{ text }}")

    status, _, errors = shell.run("penstock", *arguments, "--model", "unknown")

    assert status == 1
    assert errors.strip().splitlines()[-1].startswith("penstock: There is no such model")
    assert "Traceback" not in errors
    assert not (tmp_path / "out.csv.penstock.json").exists()


def test_no_service_is_one_sentence_at_once(shell: Shell, tmp_path: Path) -> None:
    write_table(tmp_path / "in.csv", 3)
    for command in (
        ("annotate", "in.csv", "--output", "out.csv", "--template", "{{ text }}"),
        ("chat", "hello"),
        ("status",),
    ):
        status, _, errors = shell.run("penstock", *command, "--url", "http://127.0.0.1:9")

        assert status == 1
        assert "Start one with `penstock up`" in errors
        assert len(errors.strip().splitlines()) == 1


def test_jobs_are_listed_and_one_is_shown(shell: Shell, stack: RunningStack) -> None:
    with Client(stack.api_url) as client:
        job = client.submit(["a", ""], max_tokens=3, metadata={"[bold]k": "[/v]"})
        job.wait(60)

    _, listed, _ = shell.run("penstock", "status")
    status, shown, _ = shell.run("penstock", "status", job.id)
    missing, _, errors = shell.run("penstock", "status", "batch_none")

    assert job.id in listed
    assert (status, "2/2, 1 failed" in shown, "[/v]" in shown) == (0, True, True)
    assert missing == 1
    assert "There is no job under this id." in errors
