"""One look through the whole table: what is wrong in it, and rows to measure with. Asks no service.

Memory does not grow with the table.
"""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from penstock.annotation.lint.distinct import Distinct
from penstock.annotation.lint.prefix import SharedPrefix
from penstock.annotation.records import Count, Prompt, Questions, Record, Source
from penstock.annotation.task.checks import Check
from penstock.annotation.task.task import Task
from penstock.annotation.trust.right import missing
from penstock.errors import InvalidRequest

DRAWN = 256  # rows to measure with and to show
SHOWN = 5  # mistakes, and places of duplicates
COUNT_EVERY = 1_000  # rows


@dataclass(frozen=True, slots=True)
class Drawn:
    """A row as it is asked about."""

    place: str
    record: Record
    prompts: Sequence[Prompt]


@dataclass
class Survey:
    """What was found. `mistakes`: the first of the `wrong` rows; `empty`: rows by column of the
    template; `duplicates`: the first of the rows that ask what another one asks."""

    columns: Sequence[str] = ()
    checksum: str = ""
    rows: int = 0
    wrong: int = 0
    mistakes: list[str] = field(default_factory=list)
    empty: Counter[str] = field(default_factory=Counter)
    duplicates: list[tuple[str, str]] = field(default_factory=list)
    distinct: Distinct = field(default_factory=Distinct)
    prefix: SharedPrefix = field(default_factory=SharedPrefix)
    gold: int = 0
    drawn: list[Drawn] = field(default_factory=list)

    @property
    def sound(self) -> int:
        """Rows that can be asked about."""
        return self.rows - self.wrong

    @property
    def repeated(self) -> int:
        """Rows that ask what an earlier one asks; an estimate where the table is very long."""
        return max(0, self.sound - self.distinct.count)


def survey(source: Source, task: Task, questions: Questions, count: Count) -> Survey:
    """Read all rows. Raises InvalidRequest for a table without rows, or without a column that the
    task names; what is wrong with single rows is collected."""
    check = Check(task, source.name)
    found = Survey()
    chance = random.Random(task.sampling.seed)  # noqa: S311 - the same table, the same rows
    reading = source.read()
    check.columns_of(reading.columns)
    for record in reading:
        found.rows += 1
        _look(record, found, check, questions, chance, task.gold)
        if found.rows % COUNT_EVERY == 0:
            count(found.rows)
    if not found.rows:
        raise InvalidRequest(f"{source.name} has no rows.", param="table")
    check.columns_of(reading.columns)
    found.columns, found.checksum = tuple(reading.columns), reading.checksum
    return found


def _look(
    record: Record,
    found: Survey,
    check: Check,
    questions: Questions,
    chance: random.Random,
    gold: str | None,
) -> None:
    try:
        check.row(record)
        prompts = questions.ask(record.row)
    except InvalidRequest as error:
        found.wrong += 1
        if len(found.mistakes) < SHOWN:
            found.mistakes.append(error.message)
        return
    found.gold += gold is not None and not missing(record.row.get(gold))
    for column in questions.columns:
        cell = record.row.get(column)
        found.empty[column] += cell is None or (isinstance(cell, str) and not cell.strip())
    first = found.distinct.add(json.dumps(prompts), record.place)
    if first is not None and len(found.duplicates) < SHOWN:
        found.duplicates.append((record.place, first))
    for prompt in prompts:
        found.prefix.add(prompt)
    _draw(Drawn(record.place, record, prompts), found, chance)


def _draw(row: Drawn, found: Survey, chance: random.Random) -> None:
    """A reservoir: every row is kept with the same chance."""
    if len(found.drawn) < DRAWN:
        found.drawn.append(row)
    elif (at := chance.randrange(found.sound)) < DRAWN:
        found.drawn[at] = row
