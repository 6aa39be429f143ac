"""`penstock annotate`, `chat` and `status` on a running stack, interrupted and killed."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from examples.stdlib.stack import RunningStack
from penstock.client import Penstock
from tests.integration.annotate.conftest import Shell

pytestmark = pytest.mark.slow

LARGE = 20_000  # rows; several seconds of work even for the fake model


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
    """The job of a state file, None as long as there is none."""
    found: str | None = json.loads(state.read_text())["request_id"] if state.exists() else None
    return found


@pytest.fixture
def large(tmp_path: Path) -> tuple[str, ...]:
    """The arguments of an annotation that takes a while."""
    write_table(tmp_path / "in.csv", LARGE)
    options = ("--output", "out.csv", "--template", "Say {text}", "--max-tokens", "8")
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
    table = [{"text": "good"}, {"text": " "}, {"text": "nul \x00"}, {"text": "ü \ud800"}]
    (tmp_path / "in.jsonl").write_text("".join(json.dumps(row) + "\n" for row in table))

    status, output, errors = shell.run(
        "penstock", "annotate", "in.jsonl", "--output", "out.csv", "--template", "{text}"
    )

    assert status == 0, errors
    rows = read_table(tmp_path / "out.csv")
    assert [row["error"].partition(":")[0] for row in rows] == [
        "",
        "empty_prompt",
        "invalid_text",
        "invalid_text",
    ]
    assert rows[0]["answer"] == "echo: good"
    assert "4 rows, 3 failed" in output


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
    assert f"Picking up job {job_id}." in notes
    check_output(tmp_path / "out.csv")


def test_ctrl_c_around_the_upload_makes_one_job_in_the_end(
    shell: Shell, stack: RunningStack, tmp_path: Path, large: tuple[str, ...]
) -> None:
    command = (*large, "--seed", "7")
    state = tmp_path / "out.csv.penstock.json"
    with Penstock(stack.api_url) as client:
        before = len(client.jobs(limit=500))
        first = shell.start(*command)
        until("the upload has begun", state.exists)

        status, _ = interrupt(first)
        again, _, errors = shell.run(*command)

        assert status == 130
        assert again == 0, errors
        assert len(client.jobs(limit=500)) == before + 1
    check_output(tmp_path / "out.csv")


def test_an_annotation_survives_the_death_of_the_api_and_of_the_worker(
    shell: Shell, stack: RunningStack, tmp_path: Path, large: tuple[str, ...]
) -> None:
    running = shell.start(*large, "--seed", "8")
    until("the job is posted", lambda: posted_id(tmp_path / "out.csv.penstock.json"))

    for name in ("api", "worker"):
        os.kill(stack.children[name], signal.SIGKILL)
    _, errors = running.communicate(timeout=100)

    assert running.returncode == 0, errors
    check_output(tmp_path / "out.csv")


def test_a_refusal_of_the_service_is_one_sentence(shell: Shell, tmp_path: Path) -> None:
    write_table(tmp_path / "in.csv", 3)
    arguments = ("annotate", "in.csv", "--output", "out.csv", "--template", "{text}")

    status, _, errors = shell.run("penstock", *arguments, "--model", "unknown")

    assert status == 1
    assert errors.strip().splitlines()[-1].startswith("penstock: There is no such model")
    assert "Traceback" not in errors
    assert not (tmp_path / "out.csv.penstock.json").exists()


def test_no_service_is_one_sentence_at_once(shell: Shell, tmp_path: Path) -> None:
    write_table(tmp_path / "in.csv", 3)
    for command in (
        ("annotate", "in.csv", "--output", "out.csv", "--template", "{text}"),
        ("chat", "hello"),
        ("status",),
    ):
        status, _, errors = shell.run("penstock", *command, "--url", "http://127.0.0.1:9")

        assert status == 1
        assert "Start one with `penstock up`" in errors
        assert len(errors.strip().splitlines()) == 1


def test_a_question_at_the_command_line_is_answered(shell: Shell) -> None:
    assert shell.run("penstock", "chat", "hello there") == (0, "echo: hello there\n", "")


def test_a_conversation_is_kept_until_reset_and_ends_with_its_input(
    shell: Shell, stack: RunningStack
) -> None:
    with Penstock(stack.api_url) as client:
        before = client.stats().conversations
        typed = "one\n\n/reset\ntwo\nthree\n"

        status, output, _ = shell.run("penstock", "chat", typed=typed)

        assert status == 0
        assert [line for line in output.splitlines() if "echo" in line] == [
            "echo: one",
            "echo: two",
            "echo: three",
        ]
        assert client.stats().conversations == before + 1


def test_jobs_are_listed_and_one_is_shown(shell: Shell, stack: RunningStack) -> None:
    with Penstock(stack.api_url) as client:
        job = client.batch_generate(["a", ""], max_tokens=3, metadata={"[bold]k": "[/v]"})
        job.wait(60)

    _, listed, _ = shell.run("penstock", "status")
    status, shown, _ = shell.run("penstock", "status", job.id)
    missing, _, errors = shell.run("penstock", "status", "batch_none")

    assert job.id in listed
    assert (status, "2/2, 1 failed" in shown, "[/v]" in shown) == (0, True, True)
    assert missing == 1
    assert "There is no job under this id." in errors


def test_the_quickstart_prints_an_answer_for_each_review(shell: Shell, stack: RunningStack) -> None:
    status, output, errors = shell.run("examples.quickstart.annotate", stack.api_url)

    assert status == 0, errors
    lines = output.splitlines()
    assert [line.partition(" ")[0] for line in lines[1:]] == ["0", "1", "2"]
    assert "empty" in lines[3]
