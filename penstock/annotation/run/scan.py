"""One look through the whole table before anything is sent: is it sound, which rows have gold,
which are the pilot's. Knows no service."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from penstock.annotation.records import Record, Source, Watcher
from penstock.annotation.run.sample import Drawn, Sampler, draw_of
from penstock.annotation.task.checks import Check
from penstock.annotation.task.task import Task
from penstock.annotation.trust.right import missing
from penstock.errors import InvalidRequest

COUNT_EVERY = 1_000  # rows
MOST_GOLD = 10_000  # rows of which the calibration and the live accuracy are made


@dataclass(frozen=True, slots=True)
class Scan:
    """What was found. `gold`: the cells of the rows that have one; of very many an even sample of
    `MOST_GOLD`, since a table may be sorted."""

    rows: int
    columns: tuple[str, ...]
    checksum: str
    gold: Mapping[int, object]
    pilot: list[int] | None


def scan(
    source: Source, task: Task, asked: Sequence[str], watcher: Watcher, pilot: int | None
) -> Scan:
    """Read all rows. `asked`: the columns that prompts are made of; `pilot`: rows to draw.

    Raises InvalidRequest for the first thing that is wrong.
    """
    check = Check(task, source.name)
    seed = task.sampling.seed
    sampler = None if pilot is None else Sampler(pilot, seed)
    gold: Drawn[object] = Drawn()
    rows = 0
    reading = source.read()
    check.columns_of(reading.columns)
    for record in reading:
        check.row(record)
        rows += 1
        cell = record.row.get(task.gold) if task.gold else None
        if not missing(cell):
            gold.offer(draw_of(record.number, seed), record.number, MOST_GOLD, cell)
        if sampler is not None:
            length = sum(len(str(record.row.get(name, ""))) for name in asked)
            sampler.offer(record.number, None if missing(cell) else gold_text(cell), length)
        if rows % COUNT_EVERY == 0:
            watcher.reading(rows)
    if rows == 0:
        raise InvalidRequest(f"{source.name} has no rows.", param="table")
    check.columns_of(reading.columns)  # of a format that tells them only now
    drawn = None if sampler is None else sampler.rows
    return Scan(rows, tuple(reading.columns), reading.checksum, gold.taken, drawn)


def gold_text(cell: object) -> str:
    """A gold cell as one text."""
    return cell.strip() if isinstance(cell, str) else json.dumps(cell, default=str)


def gold_of(record: Record, task: Task) -> object:
    """The gold cell of a row, None where there is none."""
    cell = record.row.get(task.gold) if task.gold else None
    return None if missing(cell) else cell
