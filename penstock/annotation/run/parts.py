"""How a table is cut into jobs: always in the same way, so that a part that was forgotten is found
again by its key. Knows rows and prompts, no service."""

from __future__ import annotations

import hashlib
import json
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence

from penstock.annotation.records import Prompt, Questions, Record, Source
from penstock.annotation.run.ledger import Ledger, Line, Part

MAX_PROMPTS = 20_000  # of one job
MAX_BYTES = 32 << 20  # of its prompts, which are in memory while they are sent


class PartRows:
    """The numbers of a part's rows, ascending, of which only the pilot's are in memory."""

    def __init__(self, part: Part, pilot: Sequence[int]) -> None:
        self._part = part
        self._pilot = pilot
        self._first = bisect_left(pilot, part.start)
        # Row `start + i` moves on by one for each row of the pilot before it.
        self._before = [
            number - part.start - skipped for skipped, number in enumerate(pilot[self._first :])
        ]

    def __len__(self) -> int:
        return self._part.rows

    def __getitem__(self, index: int) -> int:
        if self._part.pilot:
            return self._pilot[index]
        return self._part.start + index + bisect_right(self._before, index)


class Cutter:
    """The parts of one voter, one after the other, in one reading of the table."""

    def __init__(self, source: Source, questions: Questions, ledger: Ledger, line: Line) -> None:
        self._source = source
        self._questions = questions
        self._ledger = ledger
        self._line = line
        self._pilot = frozenset(ledger.pilot_rows)
        self._rows: Iterator[Record] | None = None
        self._unposted = [part for part in line.parts if part.request_id is None]

    @property
    def place(self) -> int:
        """The row it is at; the table's end where all is cut."""
        return self._unposted[0].start if self._unposted else self._line.next_row

    def next(self) -> tuple[Part, list[Prompt]] | None:
        """The next part and its prompts, None where there is none. A new one is in the line."""
        if self._unposted:
            part = self._unposted.pop(0)
            return part, self._prompts_of(part)
        pilot = self._ledger.pilot_rows
        if pilot and not any(part.pilot for part in self._line.parts):
            part = self._part(pilot=True, rows=len(pilot))
            self._line.parts.insert(0, part)
            return part, self._prompts_of(part)
        if not self._ledger.whole:
            return None
        return self._cut()

    def _cut(self) -> tuple[Part, list[Prompt]] | None:
        start, stop = self._line.next_row, self._ledger.rows
        prompts: list[Prompt] = []
        size = 0
        for record in self._from(start):
            if record.number in self._pilot:
                continue
            asked = self._questions.ask(record.row)
            prompts += asked
            size += sum(len(json.dumps(prompt, ensure_ascii=False)) for prompt in asked)
            full = len(prompts) + self._questions.per_row > MAX_PROMPTS
            if full or size >= MAX_BYTES:
                stop = record.number + 1
                break
        if not prompts:
            return None
        rows = len(prompts) // self._questions.per_row
        part = self._part(start=start, stop=stop, rows=rows)
        self._line.parts.append(part)
        return part, prompts

    def _prompts_of(self, part: Part) -> list[Prompt]:
        """Of a part that was cut before."""
        chosen = self._of_pilot() if part.pilot else self._between(part)
        return [prompt for record in chosen for prompt in self._questions.ask(record.row)]

    def _of_pilot(self) -> Iterator[Record]:
        return (record for record in self._source.read() if record.number in self._pilot)

    def _between(self, part: Part) -> Iterator[Record]:
        left = part.rows
        for record in self._from(part.start):
            if record.number not in self._pilot:
                left -= 1
                yield record
            if left == 0:
                return

    def _from(self, start: int) -> Iterator[Record]:
        """The rows from `start` on; parts come in order, so that the table is read once."""
        if self._rows is None:
            self._rows = iter(self._source.read())
        return (record for record in self._rows if record.number >= start)

    def _part(self, *, rows: int, start: int = 0, stop: int = 0, pilot: bool = False) -> Part:
        key = key_of(self._ledger, self._questions, self._line.voter, [start, stop, pilot])
        return Part(key=key, start=start, stop=stop, rows=rows, pilot=pilot)


def key_of(ledger: Ledger, questions: Questions, voter: str, place: object) -> str:
    """The idempotency key of a job: all that it asks, and nothing of when. So that even a run
    whose ledger was lost finds its jobs instead of posting them again."""
    asked = [ledger.checksum, questions.fingerprint, voter, place, ledger.pilot, ledger.nonce]
    return hashlib.sha256(json.dumps(asked).encode()).hexdigest()
