"""One run from end to end: look through, post and follow, calibrate, write.

Every step can be interrupted at any moment; the same command goes on where it was left. Shows
nothing itself.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from penstock.annotation.records import Sink, Source, Summary, Voter, Watcher
from penstock.annotation.report.receipt import Meter
from penstock.annotation.run.answers import prior_readings
from penstock.annotation.run.closing import receipt_of, summary_of, write_manifest
from penstock.annotation.run.course import Course
from penstock.annotation.run.follow import Follower
from penstock.annotation.run.judge import Judge, asked_of, calibrated, review_rule
from penstock.annotation.run.ledger import Ledger, LedgerFile
from penstock.annotation.run.outage import outlasting
from penstock.annotation.run.parts import MAX_PROMPTS
from penstock.annotation.run.posting import Poster
from penstock.annotation.run.recall import Asked, begin_fresh, recall, reopen
from penstock.annotation.run.scan import Scan, scan
from penstock.annotation.run.tokens import note_shared_tokens
from penstock.annotation.run.writing import Writer, Written
from penstock.annotation.table.place import check_columns
from penstock.annotation.task.checks import told_gold
from penstock.annotation.task.questions import voters
from penstock.annotation.task.stop import StopRule
from penstock.annotation.task.task import Task, task_from
from penstock.annotation.trust.confidence import Confidence
from penstock.client import Client
from penstock.errors import InvalidRequest

CANCELLED = "It was cancelled."


@dataclass(frozen=True, slots=True)
class Options:
    """How a task is run. `cancel`: an interruption ends the jobs, too. `retry_failed`: prompts
    that failed in an earlier run of the same command are tried again."""

    fresh: bool = False
    cancel: bool = False
    stop_if: StopRule | None = None
    pilot_rows: int | None = None
    promote: bool = False
    retry_failed: bool = False


class Annotation:
    """One command. `state` is the ledger's path; the manifest is written beside it. `task` is the
    one that is run: with the name of the model, which columns may have in theirs."""

    def __init__(
        self,
        source: Source,
        task: Task,
        client: Client,
        watcher: Watcher,
        state: Path,
        options: Options = Options(),  # frozen
    ) -> None:
        self._source = source
        self._client = client
        self._watcher = watcher
        self._state = state
        self._file = LedgerFile(state)
        self._options = options
        self.task = _with_model(task, client, watcher)
        self.ledger: Ledger | None = None  #: as soon as the table is found to be sound
        self._voters = voters(self.task)
        self._asked = asked_of(self._voters)
        self._check()

    def run(self, sink: Callable[[], Sink]) -> Summary:
        """Do it all. Raises InvalidRequest, before anything is sent, for what is wrong with the
        table, and what the client raises."""
        found = self._scan()
        first = sink()  # refuses what it cannot write
        for sentence in told_gold(self.task):
            self._watcher.note(sentence)
        ledger = self.ledger = self._recall(found)
        self._watcher.scanned(ledger.total)
        self._file.save(ledger)
        if self.task.labels and self.task.scored and not self.task.several and not ledger.jobs:
            note_shared_tokens(self._client, self._asked, self.task.labels, self._watcher)
        meter = Meter(self._client, ledger.counters)
        ledger.counters = meter.state
        follower = self._follow(ledger, found, meter)
        judge = Judge(
            self.task,
            self._voters,
            [self._confidence(ledger, found, follower, voter) for voter in self._voters],
        )
        ledger.ended = ledger.ended or time.time()
        self._file.save(ledger)  # which refuses where the output is another run's by now
        written = self._write(ledger, judge, first, sink)
        for sentence in written.notes:
            self._watcher.note(sentence)
        if ledger.receipt is None:
            ledger.receipt = receipt_of(ledger, written, follower.ends, meter)
        write_manifest(ledger, self._state, self._source, judge, written, self._client)
        self._file.save(ledger)
        return summary_of(ledger, written, ledger.receipt, follower.ends)

    def _check(self) -> None:
        rule, rows = self._options.stop_if, self._options.pilot_rows
        if rule is not None and rule.needs_gold and self.task.gold is None:
            raise InvalidRequest(
                f"{rule.text!r} needs gold rows; name their column by --gold.", param="stop_if"
            )
        if rule is not None and rule.needs_verdicts and self.task.votes.columns:
            raise InvalidRequest(
                f"{rule.text!r} cannot be judged before the end, when the votes of columns are "
                "counted; stop by accuracy.",
                param="stop_if",
            )
        most = MAX_PROMPTS // max(each.per_row for each in self._asked.values())
        if rows is not None and rows > most:
            raise InvalidRequest(f"A pilot of this task has {most:,} rows at most.", param="rows")

    def _scan(self) -> Scan:
        columns = {name for each in self._asked.values() for name in each.columns}
        pilot = self._options.pilot_rows
        found = scan(self._source, self.task, sorted(columns), self._watcher, pilot)
        check_columns(found.columns, self.task.columns, self._source.name)
        rule = self._options.stop_if
        if rule is not None and rule.needs_gold and not found.gold:
            raise InvalidRequest(
                f"{rule.text!r} needs gold rows, and the column {self.task.gold!r} of "
                f"{self._source.name} is empty.",
                param="stop_if",
            )
        return found

    def _recall(self, found: Scan) -> Ledger:
        options, client, watcher = self._options, self._client, self._watcher
        asked = Asked(
            self._source, found, self.task, self._asked, options.pilot_rows, options.promote
        )
        if options.fresh:
            ledger = begin_fresh(asked, self._file, client, watcher)
        else:
            ledger = recall(asked, self._file)
            failed = options.retry_failed
            outlasting(lambda: reopen(ledger, client, watcher, failed=failed), watcher)
        return ledger

    def _follow(self, ledger: Ledger, found: Scan, meter: Meter) -> Follower:
        client, file, watcher = self._client, self._file, self._watcher
        rule, kind = review_rule(self.task), self.task.kind
        poster = Poster(client, self._source, ledger, file, watcher, self._asked)
        follower = Follower(client, ledger, self._voters, found.gold, rule, kind)
        course = Course(client, ledger, file, poster, follower, watcher)
        try:
            if self.task.content_free:
                outlasting(lambda: poster.prior(self.task.content_free), watcher)
            course.run(meter, self._options.stop_if)
        except KeyboardInterrupt:
            if self._options.cancel:
                course.stop(CANCELLED)
            raise
        return follower

    def _confidence(
        self, ledger: Ledger, found: Scan, follower: Follower, voter: Voter
    ) -> Confidence:
        priors = {line.voter: line.prior for line in ledger.lines}
        prior, readings = priors.get(voter.name), []
        questions = voter.questions if self.task.content_free else None
        if questions is not None and prior is not None:
            readings = outlasting(
                lambda: prior_readings(self._client, questions, prior), self._watcher
            )
        on_gold = follower.on_gold.get(voter.name, {})
        return calibrated(self.task, voter, on_gold, found.gold, readings, self._watcher)

    def _write(
        self, ledger: Ledger, judge: Judge, first: Sink, sink: Callable[[], Sink]
    ) -> Written:
        """Begun again where the service leaves meanwhile."""
        made = [first]

        def attempt() -> Written:
            into = made.pop() if made else sink()
            return Writer(self._client, self._source, ledger, judge).write(into)

        return outlasting(attempt, self._watcher)


def _with_model(task: Task, client: Client, watcher: Watcher) -> Task:
    """The task with the served model where it names none: another model is another question."""
    if task.model is not None:
        return task
    return task_from(task, model=outlasting(lambda: client.stats().model.name, watcher))
