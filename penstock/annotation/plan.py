"""What one run of `penstock annotate` is asked to do, checked before anything is sent."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from penstock.annotation.tables import Format, Table
from penstock.annotation.template import Template
from penstock.errors import InvalidRequest
from penstock.schemas.sampling import Mode

BODY_VERSION = 1  # of the body that a plan leads to; another one must not meet an old key

COUNT_EVERY = 500  # rows


@dataclass(frozen=True, slots=True)
class AnswerColumns:
    """The columns that the output has beside the input's."""

    answer: str = "answer"

    @property
    def error(self) -> str:
        return "error" if self.answer == "answer" else f"{self.answer}_error"

    @property
    def in_choices(self) -> str:
        return "in_choices" if self.answer == "answer" else f"{self.answer}_in_choices"

    @property
    def probability(self) -> str:
        return "probability" if self.answer == "answer" else f"{self.answer}_probability"


@dataclass(frozen=True, slots=True)
class Plan:
    """One annotation. `fields` go into the job as they are. With `choices` an answer is the
    likeliest of them (`score`), or a text that is written and can be no other (`generate`)."""

    input: Path
    output: Path
    template: str
    choices: tuple[str, ...] = ()
    mode: Mode = "score"
    fields: Mapping[str, object] = field(default_factory=dict)
    columns: AnswerColumns = AnswerColumns()
    fresh: bool = False

    @property
    def parsed(self) -> Template:
        return Template.parse(self.template, self.choices)

    @property
    def body(self) -> dict[str, object]:
        """The fields of the job."""
        asked = {"choices": list(self.choices), "mode": self.mode} if self.choices else {}
        return {**self.fields, **asked}

    @property
    def question(self) -> str:
        """A fingerprint of all that is asked about a row."""
        asked = [BODY_VERSION, self.template, self.choices, self.body]
        return hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()

    @property
    def added(self) -> tuple[str, ...]:
        names = [self.columns.answer, self.columns.error]
        if self.choices:
            names.append(self.columns.in_choices)
        if self.scored:
            names.append(self.columns.probability)
        return tuple(names)

    @property
    def scored(self) -> bool:
        """Each answer has a probability."""
        return bool(self.choices) and self.mode == "score"

    def check(self) -> None:
        """Raise InvalidRequest for what can be seen without reading the rows."""
        for table in (self.input, self.output):
            Format.of(table)
        if not self.input.is_file():
            reason = "is no regular file" if self.input.exists() else "does not exist"
            raise InvalidRequest(f"{self.input} {reason}.", param="input")
        if not os.access(self.input, os.R_OK):
            raise InvalidRequest(f"{self.input} may not be read.", param="input")
        folder = self.output.parent
        if not folder.is_dir() or not os.access(folder, os.W_OK):
            raise InvalidRequest(f"{folder} is no folder that can be written.", param="output")
        if self.output.is_dir():
            raise InvalidRequest(f"{self.output} is a folder.", param="output")
        if self.output.exists() and self.output.samefile(self.input):
            raise InvalidRequest("INPUT and --output are the same file.", param="output")
        if not self.template.strip():
            raise InvalidRequest("The template is empty.", param="template")
        if not self.parsed.columns:
            raise InvalidRequest(
                "The template names no column, so all rows would ask the same; "
                "write {column} where a cell belongs.",
                param="template",
            )


def counted(rows: int) -> str:
    """`1 row`, `2,000 rows`."""
    return f"{rows:,} {'row' if rows == 1 else 'rows'}"


@dataclass(frozen=True, slots=True)
class Scan:
    """What one look through the whole input found."""

    rows: int
    columns: tuple[str, ...]
    checksum: str
    delimiter: str


def scan(plan: Plan) -> Scan:
    """Read the input once, to its end. Raises InvalidRequest for the first thing that is wrong."""
    table = Table(plan.input)
    template = plan.parsed
    count = 0
    for row in table.rows():
        if count == 0 or table.format is Format.JSONL:
            template.require(row, _where(table))
        count += 1
    if count == 0:
        raise InvalidRequest(f"{plan.input} has no rows.", param="input")
    taken = [name for name in plan.added if name in table.columns]
    if taken:
        raise InvalidRequest(
            f"{plan.input} has a column {taken[0]!r} already; name the new one by --answer-column.",
            param="output",
        )
    return Scan(count, tuple(table.columns), table.checksum, table.delimiter)


def _where(table: Table) -> str:
    return str(table.path) + (f", line {table.line}" if table.format is Format.JSONL else "")


class Prompts(Iterable[str]):
    """The prompts of a plan, read from the input anew at each iteration. `count` is called now
    and then with how many were taken."""

    def __init__(self, plan: Plan, count: Callable[[int], None]) -> None:
        self._plan = plan
        self._count = count

    def __iter__(self) -> Iterator[str]:
        template = self._plan.parsed
        for number, row in enumerate(Table(self._plan.input).rows(), 1):
            yield template.render(row)
            if number % COUNT_EVERY == 0:
                self._count(number)


def parse_choices(text: str) -> tuple[str, ...]:
    """`"a, b"` as a tuple. Raises InvalidRequest unless there are two different ones at least."""
    choices = tuple(part.strip() for part in text.split(","))
    if "" in choices or len(set(choices)) < max(2, len(choices)):
        raise InvalidRequest(
            "--choices needs two or more different answers, with commas between them.",
            param="choices",
        )
    return choices
