"""Posts the parts of a run, each written into the ledger before. Knows no answer."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass

from penstock.annotation.records import Prompt, Questions, Source, Watcher
from penstock.annotation.run.ledger import Ledger, LedgerFile, Line, Part
from penstock.annotation.run.parts import Cutter, key_of
from penstock.annotation.run.recall import go_on
from penstock.client import Client
from penstock.errors import IdempotencyMismatch, InvalidRequest, PenstockError

FULL_PAUSE = 10.0  # seconds before a service without room is asked again, where it says no time


@dataclass(frozen=True, slots=True)
class Pending:
    """A part that is in the ledger and not yet with the service."""

    part: Part
    prompts: list[Prompt]
    questions: Questions


class Poster:
    """Of all voters in turn, so that rows are complete early."""

    def __init__(
        self,
        client: Client,
        source: Source,
        ledger: Ledger,
        file: LedgerFile,
        watcher: Watcher,
        asked: Mapping[str, Questions],
    ) -> None:
        self._client = client
        self._ledger = ledger
        self._file = file
        self._watcher = watcher
        self._asked = asked
        self._cutters = {
            line.voter: Cutter(source, asked[line.voter], ledger, line) for line in ledger.lines
        }
        self._pending: Pending | None = None
        self._not_before = 0.0
        posted = (part for line in ledger.lines for part in line.parts if part.request_id)
        self._sent = sum(part.rows for part in posted)

    @property
    def done(self) -> bool:
        """Everything is with the service."""
        return not self._cutters and self._pending is None

    def close(self) -> None:
        """Post no more; but a part that may have arrived is posted, so that its job is known."""
        if self._pending is not None:
            self._post(self._pending)
        self._pending = None
        self._cutters.clear()

    def prior(self, contents: tuple[str, ...]) -> None:
        """Post the prompts without content, of every voter that has not been asked these."""
        for line in self._ledger.lines:
            questions = self._asked[line.voter]
            key = key_of(self._ledger, questions, line.voter, ["prior", *contents])
            if line.prior is None or line.prior.key != key:
                line.prior = Part(key=key, rows=len(contents))
            if line.prior.request_id is None:
                prompts = [prompt for text in contents for prompt in _empty(questions, text)]
                self._post(Pending(line.prior, prompts, questions))

    def post(self) -> bool:
        """Post the next part. False where nothing was: all is posted, or there is no room yet.

        Raises what the client raises, but for a service that is full or away: that is for later.
        """
        if time.monotonic() < self._not_before:
            return False
        pending = self._pending or self._next()
        if pending is None:
            return False
        self._pending = pending
        try:
            self._post(pending)
        except PenstockError as error:
            if not error.retryable:
                raise
            self._watcher.note(f"{error.message} The rest is sent when there is room.")
            self._not_before = time.monotonic() + (error.retry_after or FULL_PAUSE)
            return False
        self._pending = None
        self._sent += pending.part.rows
        self._watcher.sending(min(self._ledger.total, self._sent // len(self._ledger.lines)))
        return True

    def _next(self) -> Pending | None:
        while self._cutters:
            voter = min(self._cutters, key=lambda name: self._cutters[name].place)
            found = self._cutters[voter].next()
            if found is not None:
                return Pending(*found, self._asked[voter])
            del self._cutters[voter]
        return None

    def _post(self, pending: Pending) -> None:
        part = pending.part
        if self._ledger.started is None:
            self._ledger.started = time.time()
        self._file.save(self._ledger)
        try:
            job = self._client.submit(
                pending.prompts, idempotency_key=part.key, **pending.questions.body
            )
        except IdempotencyMismatch:
            raise InvalidRequest(
                "An earlier job of this table was sent in another form; start anew with --fresh."
            ) from None
        except PenstockError as error:
            if not error.retryable and not self._ledger.request_ids:
                self._file.forget()  # refused for good, so there is nothing to pick up
            raise
        part.request_id = job.id
        self._file.save(self._ledger)
        if job.replayed:
            self._watcher.note(f"Job {job.id} was posted before; picking it up.")
            go_on(self._client, job.id)


def lines_of(asked: Mapping[str, Questions]) -> list[Line]:
    return [Line(voter=name) for name in asked]


def _empty(questions: Questions, text: str) -> list[Prompt]:
    """The prompts of a row whose every cell is `text`."""
    return list(questions.ask(dict.fromkeys(questions.columns, text)))
