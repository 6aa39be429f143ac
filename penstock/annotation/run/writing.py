"""The output of a run: every row with what was decided of it, in the order of the table.

Knows the ledger, the answers and the sink; posts nothing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass, field

from penstock.annotation.records import Kind, Live, Pass, Reading, Record, Sink, Source, Verdict
from penstock.annotation.run.answers import Answers
from penstock.annotation.run.judge import Judge, asked_of
from penstock.annotation.run.ledger import Ledger
from penstock.annotation.run.scan import gold_of, gold_text
from penstock.annotation.task.questions import cells
from penstock.annotation.trust.agreement import key
from penstock.annotation.trust.live import Tally
from penstock.annotation.trust.right import labels_of
from penstock.client import Client
from penstock.errors import InvalidRequest

MOST_PATTERNS = 100_000  # kinds of votes from which the agreement is counted
NOT_ASKED = "not_asked: The run was stopped before."
NO_ANSWER = "no_answer: The service has none."

Votes = tuple[Hashable, ...]


@dataclass
class Written:
    """What became of the rows. `columns`: those of the table. `votes`: how many rows have which
    values; `against_gold`: how many the decision and, beside it, the gold answer. `outvoted`: rows
    that a voter failed at and others decided, with the first of its `reasons`."""

    live: Live
    columns: Sequence[str] = ()
    votes: Counter[Votes] = field(default_factory=Counter)
    against_gold: Counter[Votes] = field(default_factory=Counter)
    first_error: str | None = None
    outvoted: Counter[str] = field(default_factory=Counter)
    reasons: dict[str, str] = field(default_factory=dict)

    @property
    def notes(self) -> Iterator[str]:
        """A sentence for each voter without an answer to rows that others decided."""
        for voter, rows in self.outvoted.items():
            which = "1 row" if rows == 1 else f"{rows:,} rows"
            yield (
                f"{voter}: no answer to {which}, which the other voters decided "
                f"(the first: {self.reasons[voter]})"
            )


class Writer:
    """One pass over the table. `partial`: rows that are not complete are left out; else they have
    the reason why not."""

    def __init__(
        self, client: Client, source: Source, ledger: Ledger, judge: Judge, *, partial: bool = False
    ) -> None:
        self._source = source
        self._ledger = ledger
        self._judge = judge
        self._partial = partial
        self._pilot = frozenset(ledger.pilot_rows)
        asked = asked_of(judge.voters)
        self._answers = {
            line.voter: Answers(client, asked[line.voter], line, self._pilot)
            for line in ledger.lines
        }

    def write(self, sink: Sink) -> Written:
        """Raises InvalidRequest where the table is not that of the run."""
        task = self._judge.task
        tally = Tally(task.kind)
        written = Written(tally.live(0, 0.0))
        reading = self._source.read()
        with sink as out:
            for record, verdict in self._verdicts(reading):
                gold = gold_of(record, task)
                tally.add(verdict, gold)
                self._count(written, verdict, gold)
                out.write(record, cells(task, verdict))
        written.live = tally.live(self._ledger.total, 0.0)
        written.columns = reading.columns
        return written

    def _verdicts(self, reading: Pass) -> Iterator[tuple[Record, Verdict]]:
        rows = 0
        for record in reading:
            rows += 1
            if rows > self._ledger.rows:
                break
            if not self._ledger.whole and record.number not in self._pilot:
                continue
            asked = self._asked(record.number)
            if asked is not None:
                yield record, self._judge.verdict(record, asked)
        if rows != self._ledger.rows or reading.checksum != self._ledger.checksum:
            raise changed(self._ledger.source)

    def _asked(self, row: int) -> dict[str, Reading] | None:
        found = {name: answers.of(row) for name, answers in self._answers.items()}
        if self._partial and any(reading is None for reading in found.values()):
            return None
        reason = NOT_ASKED if self._ledger.stopped else NO_ANSWER
        return {name: reading or Reading(None, reason) for name, reading in found.items()}

    def _count(self, written: Written, verdict: Verdict, gold: object) -> None:
        written.first_error = written.first_error or verdict.error
        for voter, vote in zip(self._judge.voters, verdict.votes, strict=True):
            if vote.error is not None and verdict.error is None:
                written.outvoted[voter.name] += 1
                written.reasons.setdefault(voter.name, vote.error)
        if self._judge.task.kind is not Kind.LABELS:
            return
        if len(verdict.votes) > 1 and len(written.votes) < MOST_PATTERNS:
            values = (vote.value for vote in verdict.votes)
            written.votes[tuple(None if value is None else key(value) for value in values)] += 1
        if gold is not None and verdict.value is not None:
            wanted = sorted(labels_of(gold)) if self._judge.task.several else gold_text(gold)
            written.against_gold[(key(verdict.value), key(wanted))] += 1


def changed(name: str) -> InvalidRequest:
    """The rows of a table and the answers of its run no longer belong together."""
    return InvalidRequest(
        f"{name} has changed since its run began; restore it, or start anew with --fresh.",
        param="table",
    )
