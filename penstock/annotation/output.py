"""The output table: input rows and answers side by side, complete or not there at all.

Knows files; asks nothing of a service.
"""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from penstock.annotation.files import writing
from penstock.annotation.plan import Plan, Scan
from penstock.annotation.tables import Format, Row, Table
from penstock.annotation.template import cell_text
from penstock.client.job import Answer
from penstock.errors import InvalidRequest

KEPT = " The answers are kept: the same command writes them when that is mended."


@dataclass(slots=True)
class Counts:
    """Rows of an output by what became of them."""

    rows: int = 0
    failed: int = 0
    outside: int = 0  #: answered, but with none of the choices
    first_error: str | None = None


def write(plan: Plan, found: Scan, answers: Iterator[Answer]) -> Counts:
    """Write the output of `plan`. Raises InvalidRequest when the input is not that of the scan."""
    counts = Counts()
    table = Table(plan.input)
    with writing(plan.output, KEPT), _replacing(plan.output) as file:
        put = _writer(file, plan, found)
        for row in table.rows():
            answer = next(answers, None)
            if answer is None:
                raise changed(plan.input)
            put(row | _added(plan, answer, counts))
        if table.checksum != found.checksum or next(answers, None) is not None:
            raise changed(plan.input)
    return counts


def changed(path: Path) -> InvalidRequest:
    """The rows of an input and the answers of its job no longer belong together."""
    return InvalidRequest(
        f"{path} has changed since its job began; restore it, or start anew with --fresh.",
        param="input",
    )


def _added(plan: Plan, answer: Answer, counts: Counts) -> Row:
    counts.rows += 1
    error = None if answer.text is not None else f"{answer.code}: {answer.message}"
    added: Row = {plan.columns.answer: answer.text, plan.columns.error: error}
    if error is not None:
        counts.failed += 1
        counts.first_error = counts.first_error or error
    if plan.choices:
        inside = None if answer.text is None else answer.text.strip() in plan.choices
        counts.outside += inside is False
        added[plan.columns.in_choices] = inside
    if plan.scored:
        added[plan.columns.probability] = _probability(answer)
    return added


def _probability(answer: Answer) -> float | None:
    """Of the answer among the choices."""
    found = (answer.detail or {}).get("probabilities")
    value = found.get(answer.text) if isinstance(found, Mapping) else None
    return round(value, 6) if isinstance(value, int | float) else None


def _writer(file: IO[str], plan: Plan, found: Scan) -> Callable[[Row], object]:
    if Format.of(plan.output) is Format.JSONL:
        return lambda row: file.write(json.dumps(row, ensure_ascii=False) + "\n")
    columns = [*found.columns, *plan.added]
    delimiter = "\t" if plan.output.suffix.lower() == ".tsv" else found.delimiter
    rows = csv.writer(file, delimiter=delimiter, lineterminator="\n")
    rows.writerow(columns)
    return lambda row: rows.writerow([cell_text(row.get(name)) for name in columns])


@contextmanager
def _replacing(path: Path) -> Iterator[IO[str]]:
    """A file that takes the place of `path` when the block ends well, and else vanishes."""
    target = path.resolve()
    fresh = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        # What UTF-8 cannot hold, a lone surrogate, is written as its JSON escape.
        with fresh.open("w", encoding="utf-8", errors="backslashreplace", newline="") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(target)
    finally:
        fresh.unlink(missing_ok=True)
