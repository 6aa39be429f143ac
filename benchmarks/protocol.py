"""How a contender is driven: one process each, JSON lines in and out. Standard library only, for
it runs in every contender's own environment. Knows no engine."""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import signal
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, TextIO

PR_SET_PDEATHSIG = 1  #: of Linux


@dataclass(frozen=True, slots=True)
class Job:
    """One prompt as token ids, and how many tokens it is to be answered with. With `choices` (token
    ids of labels) it asks which of them fits instead."""

    prompt: tuple[int, ...]
    tokens: int
    choices: tuple[tuple[int, ...], ...] = ()


@dataclass(frozen=True, slots=True)
class Workload:
    """Jobs in order of arrival. `labels` are the texts of the choices, `shared` the tokens that all
    prompts begin with."""

    name: str
    jobs: tuple[Job, ...]
    labels: tuple[str, ...] = ()
    shared: int = 0

    @property
    def tokens(self) -> int:
        return sum(job.tokens for job in self.jobs)

    def part(self, start: int, rows: int) -> Workload:
        """So many jobs from a place on, around the end where there are not enough behind it."""
        turned = self.jobs[start % len(self.jobs) :] + self.jobs[: start % len(self.jobs)]
        return replace(self, jobs=turned[:rows])


@dataclass(frozen=True, slots=True)
class Task:
    """What to do with a workload, and its settings: whatever the contender understands."""

    kind: str
    workload: Workload
    settings: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Answer:
    """What a run took. `tokens` and `rows` are what was asked for and delivered; `picks` the index
    of each job's label."""

    seconds: float
    rows: int
    tokens: int
    figures: dict[str, float] = field(default_factory=dict)
    picks: tuple[int, ...] = ()


Run = Callable[[Task], Answer]
Load = Callable[[dict[str, Any]], tuple[Run, dict[str, str]]]


def save(workload: Workload, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(asdict(workload)))


def read(path: Path) -> Workload:
    """Equal numbers become one object: what rows take here is not what is measured."""
    numbers: dict[str, int] = {}
    raw = json.loads(path.read_text(), parse_int=lambda digits: _one(numbers, digits))
    jobs = tuple(
        Job(tuple(job["prompt"]), job["tokens"], tuple(tuple(c) for c in job["choices"]))
        for job in raw["jobs"]
    )
    return Workload(raw["name"], jobs, tuple(raw["labels"]), raw["shared"])


def _one(numbers: dict[str, int], digits: str) -> int:
    return numbers.setdefault(digits, int(digits))


def serve(load: Load, arguments: Sequence[str]) -> None:
    """Load what the first argument (JSON) says, then answer one line of JSON for each until the
    input ends. What libraries print goes to standard error."""
    _die_with_parent()
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    try:
        run, versions = load(json.loads(arguments[0]))
    except Exception as error:
        _say(answers, {"error": f"{type(error).__name__}: {error}"})
        raise
    _say(answers, {"versions": versions})
    for line in sys.stdin:
        message = json.loads(line)
        workload = read(Path(message["workload"])).part(message["start"], message["rows"])
        try:
            answer = run(Task(message["kind"], workload, message["settings"]))
            _say(answers, asdict(answer))
        except Exception as error:  # said to whoever drives, who goes on with the others
            _say(answers, {"error": f"{type(error).__name__}: {error}"})
            raise
    os._exit(0)  # there is nothing to save, and torch takes seconds to go


def _die_with_parent() -> None:
    """Where the system can do that: it may be stopped by a signal when the parent is killed."""
    with contextlib.suppress(AttributeError, OSError):
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def _say(stream: TextIO, message: dict[str, Any]) -> None:
    stream.write(json.dumps(message) + "\n")
    stream.flush()
