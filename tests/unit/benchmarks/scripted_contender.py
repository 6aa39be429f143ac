"""A contender that says what it was asked, prints in between, and fails on demand. It notes when
it begins to load and when it has loaded."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

from benchmarks.protocol import Answer, Run, Task, serve


def load(options: dict[str, Any]) -> tuple[Run, dict[str, str]]:
    if options.get("broken"):
        raise RuntimeError("no such model")
    if "notes" in options:
        _note(options, "begins")
        time.sleep(0.2)
        _note(options, "ends")

    def run(task: Task) -> Answer:
        sys.stdout.write("a library prints\n")
        if task.kind == "fail":
            raise RuntimeError("out of luck")
        jobs = task.workload.jobs
        picks = tuple(len(job.prompt) for job in jobs)
        return Answer(task.settings["seconds"], len(jobs), task.workload.tokens, picks=picks)

    return run, {"scripted": "1"}


def _note(options: dict[str, Any], what: str) -> None:
    with Path(options["notes"]).open("a") as notes:
        notes.write(f"{options['name']} {what}\n")


if __name__ == "__main__":
    serve(load, sys.argv[1:])
