"""What one voter said of each row, in the order of the table, read page by page.

Knows jobs and their parts; asks about no row that has no answer.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

from penstock.annotation.records import Questions, Reading
from penstock.annotation.run.ledger import Line, Part
from penstock.client import Answer, Client


class _PartAnswers:
    """The rows of one job, ascending by their place in it; those that are open are left out."""

    def __init__(self, client: Client, part: Part, questions: Questions) -> None:
        self._questions = questions
        posted = part.request_id
        self._answers: Iterator[Answer] = (
            client.job(posted).arrived() if posted is not None else iter(())
        )
        self._next = next(self._answers, None)
        self._index = 0

    def next(self) -> Reading | None:
        """Of the next row, None where it has no answer."""
        per_row = self._questions.per_row
        first = self._index * per_row
        self._index += 1
        found: list[Answer] = []
        while self._next is not None and self._next.index < first + per_row:
            found.append(self._next)
            self._next = next(self._answers, None)
        return self._questions.read(found) if len(found) == per_row else None


class Answers:
    """Of one voter. Rows are asked for in ascending order."""

    def __init__(
        self, client: Client, questions: Questions, line: Line, pilot: frozenset[int]
    ) -> None:
        self._client = client
        self._questions = questions
        self._pilot = pilot
        self._parts = iter([part for part in line.parts if not part.pilot])
        self._part: Part | None = None
        self._answers: _PartAnswers | None = None
        first = next((part for part in line.parts if part.pilot), None)
        self._of_pilot = first and _PartAnswers(client, first, questions)

    def of(self, row: int) -> Reading | None:
        """What it said; None where it has said nothing so far."""
        if row in self._pilot:
            return self._of_pilot.next() if self._of_pilot else None
        while self._part is None or row >= self._part.stop:
            self._part = next(self._parts, None)
            if self._part is None:
                return None
            self._answers = _PartAnswers(self._client, self._part, self._questions)
        return self._answers.next() if self._answers else None


def prior_readings(client: Client, questions: Questions, prior: Part) -> list[Reading]:
    """Of the prompts without content, as soon as all are answered; none where none was posted."""
    if prior.request_id is None:
        return []
    client.job(prior.request_id).wait(math.inf, progress=False)
    answers = _PartAnswers(client, prior, questions)
    found = [answers.next() for _ in range(prior.rows)]
    return [reading for reading in found if reading is not None]
