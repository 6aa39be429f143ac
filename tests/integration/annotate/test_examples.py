"""Every program of `examples/quickstart`, the fields of `examples/packages`, and `penstock bench`,
on a running stack."""

from __future__ import annotations

import csv
import datetime as dt
import json
import re
from pathlib import Path

import httpx2
import pytest
from standardwebhooks import Webhook

from examples.stdlib.stack import RunningStack
from tests.integration.annotate.conftest import Shell

pytestmark = pytest.mark.slow

SECRET = "whsec_c2VjcmV0LXNlY3JldA=="


def run(shell: Shell, name: str, *arguments: str | Path) -> list[str]:
    """The lines that an example prints."""
    status, output, errors = shell.run(f"examples.quickstart.{name}", *arguments)
    assert (status, errors) == (0, "")
    return output.splitlines()


def test_a_job_prints_an_answer_or_a_reason_for_each_review(
    shell: Shell, stack: RunningStack
) -> None:
    first, *answers, last = run(shell, "job", stack.api_url)

    assert first.startswith("batch_")
    assert sorted(answer[:2] for answer in answers) == ["0 ", "1 ", "2 "]
    assert any("empty" in answer for answer in answers)
    assert last == "2 answered, 1 failed"


def test_chats_and_a_job_run_at_once(shell: Shell, stack: RunningStack) -> None:
    lines = run(shell, "asynchronous", stack.api_url)

    assert sum(line.startswith("chat: echo: What is a ") for line in lines) == 9
    assert sum(line.startswith("job: ") for line in lines) == 9


def test_a_conversation_is_shown_while_it_is_written(shell: Shell, stack: RunningStack) -> None:
    lines = run(shell, "stream", stack.api_url)

    assert [line for line in lines if line.startswith(">")] == [
        "> My name is Ada.",
        "> What is my name?",
    ]
    assert sum(line.startswith("echo: ") for line in lines) == 2


def test_a_table_gets_its_answers_beside_its_rows(
    shell: Shell, stack: RunningStack, tmp_path: Path
) -> None:
    [line] = run(shell, "table", stack.api_url)

    with (tmp_path / "answers.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert line == "4 rows answered, 0 failed: answers.csv"
    assert [row["product"] for row in rows] == ["kettle", "kettle", "lamp", "lamp"]
    assert {row["answer"] for row in rows} <= {"good", "bad"}


def test_fields_of_packages_are_asked_for_and_checked(
    shell: Shell, stack: RunningStack, tmp_path: Path
) -> None:
    status, output, errors = shell.run(
        "examples.packages.run", "--url", stack.api_url, "--output", "fields"
    )

    assert status == 0, errors
    assert re.search(r"(\d+) of \1 documents are valid", output)
    assert (tmp_path / "fields" / "labelled.jsonl.manifest.json").exists()


def test_openais_own_client_is_answered_whole_and_in_pieces(
    shell: Shell, stack: RunningStack
) -> None:
    whole, pieces, counted = run(shell, "openai_client", stack.api_url)

    assert sorted(whole.split()) == sorted(["echo:", "What", "does", "json.dumps", "do?"])
    assert sorted(pieces.split()) == sorted(["echo:", "And", "json.loads?"])
    assert counted == "(3 tokens)"


def test_a_webhook_is_believed_only_when_it_is_signed(shell: Shell) -> None:
    body = json.dumps({"type": "batch.completed", "data": {"id": "batch_1"}})
    at = dt.datetime.now(dt.UTC)
    headers = {
        "webhook-id": "msg_1",
        "webhook-timestamp": str(int(at.timestamp())),
        "webhook-signature": Webhook(SECRET).sign("msg_1", at, body),
    }
    receiver = shell.start("examples.quickstart.webhook", "0", WEBHOOK_SECRET=SECRET)
    assert receiver.stdout is not None
    url = receiver.stdout.readline().split()[-1]
    forged = httpx2.post(url, content=body + " ", headers=headers, trust_env=False)
    genuine = httpx2.post(url, content=body, headers=headers, trust_env=False)
    output, _ = receiver.communicate(timeout=30)

    assert (forged.status_code, genuine.status_code) == (400, 204)
    assert (receiver.returncode, output) == (0, "batch.completed: batch_1\n")


@pytest.mark.parametrize(
    ("api", "kind"), [("openai", "chat"), ("penstock", "chat"), ("penstock", "job")]
)
def test_the_stack_is_measured(
    shell: Shell, stack: RunningStack, tmp_path: Path, api: str, kind: str
) -> None:
    options = ("--api", api, "--count", "12", "--concurrency", "4", "--kind", kind)

    status, output, errors = shell.run(
        "penstock", "bench", stack.api_url, *options, "--job-size", "20", "--json", "f.json"
    )

    assert (status, errors) == (0, "")
    assert re.search(r"12 in .* s, 12 answered", output)
    found = json.loads((tmp_path / "f.json").read_text())["summary"]
    assert found["errors"] == {}
    assert found["output_tokens"] > 12
    assert found["latency"]["count"] == 12
