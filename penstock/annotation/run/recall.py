"""Which run a command means: the one of the ledger, gone on with, or a new one. Posts nothing."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from uuid_utils import uuid7

from penstock.annotation.records import Questions, Source, Watcher
from penstock.annotation.run.ledger import Ledger, LedgerFile, Line
from penstock.annotation.run.scan import Scan
from penstock.annotation.task.task import Task
from penstock.client import Client
from penstock.errors import InvalidRequest, NotFound, PenstockError
from penstock.schemas.batch import BatchResult, JobStatus

CANCEL_LIMIT = 10.0  # seconds that a job takes to be cancelled, at most


@dataclass(frozen=True, slots=True)
class Asked:
    """What a command asks for: its table, its questions, and how much of it."""

    source: Source
    found: Scan
    task: Task
    questions: Mapping[str, Questions]
    pilot: int | None
    promote: bool

    @property
    def question(self) -> str:
        prints = {name: each.fingerprint for name, each in self.questions.items()}
        return hashlib.sha256(json.dumps(prints, sort_keys=True).encode()).hexdigest()


def recall(asked: Asked, file: LedgerFile) -> Ledger:
    """The ledger to go on with. Raises InvalidRequest where the unfinished one is another's."""
    earlier = file.load()
    if earlier is None:
        if asked.promote:
            raise InvalidRequest(
                f"There is no pilot to promote: {file.path} does not exist.", param="promote"
            )
        return begin(asked)
    same = (earlier.checksum, earlier.question) == (asked.found.checksum, asked.question)
    if not same and earlier.finished and not asked.promote:
        return begin(asked)
    if not same:
        raise InvalidRequest(
            f"{_changed(asked, earlier)} has changed since the {_kind(earlier)} of {file.path} "
            "began; change it back, or start anew with --fresh.",
            param="table" if earlier.checksum != asked.found.checksum else "task",
        )
    _check_size(asked, earlier, file)
    if asked.promote and not earlier.whole:
        earlier.whole = True
        earlier.go_on()
    earlier.task = asked.task.model_dump(mode="json", exclude_defaults=True)
    return earlier


def begin(asked: Asked, nonce: str = "") -> Ledger:
    """A new run."""
    path = getattr(asked.source, "path", None)
    return Ledger(
        source=asked.source.name,
        table=str(path.absolute()) if isinstance(path, Path) else None,
        checksum=asked.found.checksum,
        rows=asked.found.rows,
        task=asked.task.model_dump(mode="json", exclude_defaults=True),
        question=asked.question,
        model=asked.task.model,
        nonce=nonce,
        pilot=asked.found.pilot,
        whole=asked.pilot is None,
        lines=[Line(voter=name) for name in asked.questions],
    )


def begin_fresh(asked: Asked, file: LedgerFile, client: Client, watcher: Watcher) -> Ledger:
    """A new run, with other keys than every earlier one, whose unfinished jobs are cancelled."""
    if asked.promote:
        raise InvalidRequest("--promote goes on with a pilot, --fresh does not.", param="promote")
    try:
        earlier = file.load()
    except InvalidRequest:
        earlier = None
    ledger = begin(asked, uuid7().hex)
    file.save(ledger)  # so that whoever follows the earlier run ends, and writes nothing
    if earlier is not None and not earlier.finished:
        try:
            watcher.note(f"The earlier run is cancelled: {_jobs(cancel(earlier, client))}.")
        except PenstockError as error:
            watcher.note(f"The earlier run was not cancelled: {error.message}")
    return ledger


def cancel(ledger: Ledger, client: Client) -> int:
    """Cancel all that was posted and has not ended; how many there were."""
    count = 0
    for request_id in ledger.request_ids:
        try:
            if not client.job(request_id).status().status.finished:
                client.job(request_id).cancel()
                count += 1
        except NotFound:
            continue
    return count


def reopen(ledger: Ledger, client: Client, watcher: Watcher, *, failed: bool) -> None:
    """Before a run is gone on with: a job that is gone will be posted anew, one that this command
    had cancelled goes on, and, if asked for, all prompts that `failed` are tried again."""
    again = failed or ledger.stopped is not None
    for part in ledger.jobs:
        if part.request_id is None:
            continue
        try:
            state = client.job(part.request_id).status()
            if again and _ended_short(client, state):
                client.job(part.request_id).retry_failed()
        except NotFound:
            watcher.note(f"Job {part.request_id} is not on this service; it is posted anew.")
            part.request_id = None
    if again:
        ledger.go_on()
    if found := len(ledger.request_ids):
        watcher.note(f"Picking up {_jobs(found)} of an earlier run.")


def go_on(client: Client, request_id: str) -> None:
    """Let a job whose run was cancelled, and forgotten, do the rest of its prompts."""
    state = client.job(request_id).status()
    if state.status is JobStatus.CANCELLED and _ended_short(client, state):
        client.job(request_id).retry_failed()


def _ended_short(client: Client, state: BatchResult) -> bool:
    """It has ended, and some prompts have no answer. One that was cancelled ends in a moment."""
    if not state.status.finished:
        try:
            state = client.job(state.request_id).wait(CANCEL_LIMIT, progress=False)
        except TimeoutError:  # it was made to go on already
            return False
    return state.progress.failed > 0


def _check_size(asked: Asked, earlier: Ledger, file: LedgerFile) -> None:
    rows = len(earlier.pilot_rows)
    if earlier.whole and asked.pilot is not None:
        raise InvalidRequest(
            f"{file.path} is of the whole table already, not of a pilot; "
            "--fresh starts anew with one.",
            param="rows",
        )
    if not earlier.whole and asked.pilot is None and not asked.promote:
        raise InvalidRequest(
            f"{file.path} is of a pilot of {rows:,} rows: `run --promote` goes on with it, "
            "--fresh starts anew.",
            param="promote",
        )
    if not earlier.whole and asked.pilot is not None and asked.found.pilot != earlier.pilot:
        raise InvalidRequest(
            f"The pilot of {file.path} has {rows:,} other rows; --fresh draws these.", param="rows"
        )


def _changed(asked: Asked, earlier: Ledger) -> str:
    if earlier.checksum != asked.found.checksum:
        return asked.source.name
    if earlier.model != asked.task.model:
        return f"The model, now {asked.task.model} and then {earlier.model or 'another'},"
    return "The task"


def _kind(ledger: Ledger) -> str:
    return "pilot" if not ledger.whole else "unfinished run"


def _jobs(count: int) -> str:
    return "1 job" if count == 1 else f"{count} jobs"
