"""Follows the jobs of a run: what came, row by row, and how far it all is. Posts and writes
nothing."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from penstock.annotation.records import Kind, Live, Reading, Voter
from penstock.annotation.run.judge import asked_of
from penstock.annotation.run.ledger import Ledger, Part
from penstock.annotation.run.parts import PartRows
from penstock.annotation.trust.confidence import Confidence
from penstock.annotation.trust.decide import ReviewRule, decide
from penstock.annotation.trust.live import Tally
from penstock.client import Answer, Client, Job
from penstock.schemas.batch import BatchResult, JobStatus

MOST_OPEN = 50_000  # rows that some voters have answered and others have not; more are not counted
HISTORY = 400  # looks that are remembered; beyond, every second one is forgotten


@dataclass
class _Watched:
    """A job that was posted, and the answers of rows that are not complete."""

    part: Part
    job: Job
    rows: PartRows
    last: BatchResult | None = None
    partial: dict[int, dict[int, Answer]] = field(default_factory=dict)

    @property
    def ended(self) -> bool:
        return self.last is not None and self.last.status.finished

    @property
    def waits(self) -> bool:
        """Nothing of it has begun."""
        last = self.last
        return last is not None and last.status is JobStatus.QUEUED and not _done(last)


class Follower:
    """Looks at the jobs of the voters that are asked. `gold`: cells by row."""

    def __init__(
        self,
        client: Client,
        ledger: Ledger,
        voters: Sequence[Voter],
        gold: Mapping[int, object],
        review: ReviewRule,
        kind: Kind,
    ) -> None:
        self._client = client
        self._ledger = ledger
        self._voters = [voter for voter in voters if voter.questions is not None]
        self._asked = asked_of(voters)
        self._gold = gold
        self._review = review
        self._kind = kind
        self._jobs: dict[str, dict[str, _Watched]] = {name: {} for name in self._asked}
        self._open: dict[int, dict[str, Reading]] = {}
        self._tally = Tally(kind)
        #: What each voter said of the gold rows, to calibrate by.
        self.on_gold: dict[str, dict[int, Reading]] = {name: {} for name in self._asked}

    def look(self, hold: float) -> bool:
        """Read what came. Whether all posted jobs have ended; if not, the service may hold the
        first request for `hold` seconds."""
        self._adopt()
        for voter, jobs in self._jobs.items():
            for watched in jobs.values():
                if watched.ended:
                    continue
                watched.last = watched.job.status(wait=hold)
                hold = 0.0
                self._read(voter, watched)
                if watched.waits:
                    break
        return all(each.ended for jobs in self._jobs.values() for each in jobs.values())

    def live(self) -> Live:
        """How far it is."""
        looks = [
            (each.last, self._asked[voter].per_row)
            for voter, jobs in self._jobs.items()
            for each in jobs.values()
            if each.last is not None
        ]
        done = sum(_done(last) / per_row for last, per_row in looks)
        seconds = time.time() - (self._ledger.started or time.time())
        return replace(
            self._tally.live(self._ledger.total, seconds),
            done=int(done / max(1, len(self._jobs))),
            prompt_tokens=sum(last.usage.prompt_tokens for last, _ in looks),
            completion_tokens=sum(last.usage.completion_tokens for last, _ in looks),
        )

    def remember(self, live: Live) -> None:
        """A point of the throughput over time, in the ledger."""
        history = self._ledger.history
        if history and live.done <= history[-1][1]:
            return
        history.append((round(live.seconds, 2), live.done))
        if len(history) > HISTORY:
            self._ledger.history = [*history[:-1:2], history[-1]]

    @property
    def ends(self) -> list[BatchResult]:
        """Of the jobs that have ended."""
        return [
            each.last
            for jobs in self._jobs.values()
            for each in jobs.values()
            if each.last is not None and each.ended
        ]

    def _adopt(self) -> None:
        """Jobs that were posted since the last look."""
        for line in self._ledger.lines:
            jobs = self._jobs[line.voter]
            for part in line.parts:
                if part.request_id is not None and part.key not in jobs:
                    rows = PartRows(part, self._ledger.pilot_rows)
                    jobs[part.key] = _Watched(part, self._client.job(part.request_id), rows)

    def _read(self, voter: str, watched: _Watched) -> None:
        questions = self._asked[voter]
        for answer in watched.job.arrived():
            index, slot = divmod(answer.index, questions.per_row)
            slots = watched.partial.setdefault(index, {})
            slots[slot] = answer
            if len(slots) == questions.per_row:
                del watched.partial[index]
                reading = questions.read([slots[each] for each in range(questions.per_row)])
                self._heard(voter, watched.rows[index], reading)

    def _heard(self, voter: str, row: int, reading: Reading) -> None:
        if row in self._gold:
            self.on_gold[voter][row] = reading
        said = self._open.setdefault(row, {})
        said[voter] = reading
        if len(said) == len(self._voters):
            del self._open[row]
            readings = [said[each.name] for each in self._voters]
            plain = [Confidence()] * len(readings)
            verdict = decide(self._voters, readings, plain, self._review, self._kind)
            self._tally.add(verdict, self._gold.get(row))
        elif len(self._open) > MOST_OPEN:
            del self._open[row]


def _done(last: BatchResult) -> int:
    return last.progress.completed + last.progress.failed
