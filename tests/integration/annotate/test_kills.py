"""`kill -9` of the client and of the worker, and the same command: nothing shows it afterwards."""

from __future__ import annotations

import csv
import json
import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from examples.stdlib.stack import RunningStack
from penstock.client import Client
from tests.integration.annotate.conftest import Shell
from tests.support.waiting import until

pytestmark = pytest.mark.slow

ROWS, PILOT = 20_000, 500
OPTIONS = ("--template", "Row {{ text }}", "--max-tokens", "3")


def write_table(path: Path) -> None:
    rows = (f'{n},"{n},\n""ü"""\n' for n in range(ROWS))
    path.write_text("id,text\n" + "".join(rows), encoding="utf-8")


def posted(state: Path) -> list[str]:
    """The jobs of a ledger."""
    parts = [part for line in json.loads(state.read_text())["lines"] for part in line["parts"]]
    return [part["request_id"] for part in parts if part["request_id"]]


def worker_of(stack: RunningStack) -> int:
    """Its process id, which changes when it is started again."""
    facts = json.loads(Path(stack.logs).with_name("stack.json").read_text())
    return int(facts["children"]["worker"])


def test_five_kills_in_one_run_leave_the_output_of_an_undisturbed_one(
    shell: Shell, stack: RunningStack, tmp_path: Path
) -> None:
    write_table(tmp_path / "in.csv")
    state = tmp_path / "out.csv.penstock.json"
    output = ("in.csv", "--output", "out.csv", *OPTIONS)
    command = ("penstock", "annotate", *output, "--promote")

    def kill_client(when: Callable[[], bool]) -> None:
        process = shell.start(*command)
        until("it is time to kill the client", when)
        process.kill()
        process.communicate()

    def kill_worker() -> int:
        pid = worker_of(stack)
        os.kill(pid, signal.SIGKILL)
        return pid

    with Client(stack.api_url) as service:
        known = {job.request_id for job in service.jobs(limit=500)}
        pilot = ("penstock", "annotate", "pilot", *output, "--rows", str(PILOT))
        assert shell.run(*pilot)[0] == 0
        kill_client(lambda: json.loads(state.read_text())["whole"])  # about to post
        kill_client(lambda: len(posted(state)) == 2)  # has posted
        killed = kill_worker()
        until("there is another worker", lambda: worker_of(stack) != killed)
        whole = service.job(posted(state)[1])
        kill_client(lambda: whole.status().progress.completed > ROWS // 4)  # follows
        kill_worker()
        status, shown, errors = shell.run(*command)
        made = [job for job in service.jobs(limit=500) if job.request_id not in known]

    assert (status, f"{ROWS:,} rows, 0 failed" in shown) == (0, True), errors
    assert sorted(job.progress.total for job in made) == [PILOT, ROWS - PILOT]
    with (tmp_path / "out.csv").open(newline="", encoding="utf-8") as file:
        found = [(row["id"], row["answer"]) for row in csv.DictReader(file)]
    assert found == [(str(n), f"echo: Row {n},") for n in range(ROWS)]
    calm = shell.run("penstock", "annotate", "in.csv", "--output", "calm.csv", *OPTIONS)
    assert calm[0] == 0
    assert (tmp_path / "calm.csv").read_bytes() == (tmp_path / "out.csv").read_bytes()
