"""One annotation from end to end: look through, post once, follow, write.

Every step can be interrupted at any moment; the same plan goes on where it was left. Knows the
client's calls and the files; shows nothing itself.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from uuid_utils import uuid7

from penstock.annotation import output
from penstock.annotation.plan import Plan, Prompts, Scan, counted, scan
from penstock.annotation.state import JobRecord, StateFile
from penstock.client import Job, Penstock
from penstock.errors import IdempotencyMismatch, InvalidRequest, NotFound, PenstockError
from penstock.schemas.batch import BatchResult, JobStatus

POLL = 0.5  # seconds between two looks at the progress


class Watcher(Protocol):
    """Is told what happens. Called on the thread of the annotation."""

    def note(self, sentence: str) -> None:
        """Something that the user should know."""

    def scanned(self, rows: int) -> None:
        """The input is sound."""

    def sending(self, rows: int) -> None:
        """So many rows are on their way."""

    def posted(self, request_id: str) -> None:
        """The job is stored; from now on nothing is lost."""

    def progressed(self, progress: BatchResult) -> None:
        """A look at the job."""


@dataclass(frozen=True, slots=True)
class Summary:
    """What became of a run."""

    request_id: str
    status: JobStatus
    rows: int
    failed: int
    outside: int
    prompt_tokens: int
    completion_tokens: int
    seconds: float  #: from the job's first prompt to its last
    output: Path
    problem: str | None  #: one sentence, where the job did not complete


class Annotation:
    """One run of a plan. `request_id` is None until the job is posted or found again."""

    def __init__(self, plan: Plan, client: Penstock, watcher: Watcher) -> None:
        self._plan = plan
        self._client = client
        self._watcher = watcher
        self._state = StateFile(plan.output)
        self.request_id: str | None = None

    def run(self) -> Summary:
        """Do it all. Raises InvalidRequest before anything is sent for what is wrong with the
        plan or the input, and what the client raises."""
        self._plan.check()
        found = scan(self._plan)
        self._watcher.scanned(found.rows)
        self._plan = self._with_model()
        record = self._recall(found)
        job, record = self._job(record)
        end = job.wait(math.inf, poll=POLL, on_progress=self._watcher.progressed)
        if end.progress.total != found.rows:
            raise output.changed(self._plan.input)
        counts = output.write(self._plan, found, job.results())
        self._state.save(record.model_copy(update={"finished": True}))
        return Summary(
            request_id=job.id,
            status=end.status,
            rows=counts.rows,
            failed=counts.failed,
            outside=counts.outside,
            prompt_tokens=end.usage.prompt_tokens,
            completion_tokens=end.usage.completion_tokens,
            seconds=end.processing_time or 0.0,
            output=self._plan.output,
            problem=_problem(end, counts),
        )

    def _with_model(self) -> Plan:
        """The plan with the served model where it names none: another model is another question."""
        if "model" in self._plan.fields:
            return self._plan
        served = self._client.stats().model.name
        return replace(self._plan, fields={**self._plan.fields, "model": served})

    def _recall(self, found: Scan) -> JobRecord:
        """The record of this plan's run so far, or a new one, saved before anything is posted."""
        asked = (found.checksum, self._plan.question)
        if self._plan.fresh:
            self._abandon()
            return self._new_record(asked, nonce=uuid7().hex)
        earlier = self._state.load()
        if earlier is None:
            return self._new_record(asked)
        if (earlier.input_checksum, earlier.question) == asked:
            return earlier
        if earlier.finished:
            return self._new_record(asked)
        raise InvalidRequest(
            f"{self._changed(earlier, found)} has changed since the unfinished job of "
            f"{self._plan.output} began; change it back, or start anew with --fresh."
        )

    def _changed(self, earlier: JobRecord, found: Scan) -> str:
        if earlier.input_checksum != found.checksum:
            return str(self._plan.input)
        model = self._plan.fields["model"]
        if earlier.model != model:
            return f"The model, now {model} and then {earlier.model or 'another'},"
        return "The template or an option"

    def _new_record(self, asked: tuple[str, str], nonce: str = "") -> JobRecord:
        checksum, question = asked
        # The same input and question give the same key, so that even without the state file a
        # repeated command finds its job instead of making a second one.
        key = hashlib.sha256(f"{checksum}:{question}:{nonce}".encode()).hexdigest()
        record = JobRecord(
            idempotency_key=key,
            input_checksum=checksum,
            question=question,
            model=str(self._plan.fields["model"]),
        )
        self._state.save(record)
        return record

    def _abandon(self) -> None:
        """Cancel the unfinished job of an earlier run, if there is one that can be reached."""
        try:
            earlier = self._state.load()
        except InvalidRequest:
            return
        if earlier is None or earlier.finished or earlier.request_id is None:
            return
        try:
            self._client.job(earlier.request_id).cancel()
            self._watcher.note(f"The earlier job {earlier.request_id} is cancelled.")
        except PenstockError as error:
            self._watcher.note(f"The earlier job was not cancelled: {error.message}")

    def _job(self, record: JobRecord) -> tuple[Job, JobRecord]:
        """The job of `record`: the one it names, or, where there is none, posted now."""
        if record.request_id is not None:
            job = self._client.job(record.request_id)
            try:
                job.status()
                self.request_id = job.id
                self._watcher.note(f"Picking up job {job.id}.")
                return job, record
            except NotFound:
                self._watcher.note(f"Job {job.id} is not on this service; it is posted anew.")
        job = self._post(record)
        self.request_id = job.id
        record = record.model_copy(update={"request_id": job.id, "finished": False})
        self._state.save(record)
        if job.replayed:
            self._watcher.note(f"Job {job.id} was posted before; picking it up.")
        else:
            self._watcher.posted(job.id)
        return job, record

    def _post(self, record: JobRecord) -> Job:
        prompts = Prompts(self._plan, self._watcher.sending)
        key = record.idempotency_key
        try:
            return self._client.batch_generate(prompts, idempotency_key=key, **self._plan.body)
        except IdempotencyMismatch:
            raise InvalidRequest(
                "An earlier job of this input was sent in another form; start anew with --fresh."
            ) from None
        except PenstockError as error:
            if not error.retryable:  # refused for good, so there is nothing to pick up
                self._state.forget()
            raise


def _problem(end: BatchResult, counts: output.Counts) -> str | None:
    if end.status is JobStatus.COMPLETED:
        return None
    return (
        f"Job {end.request_id} is {end.status}; without an answer: {counts.failed} of "
        f"{counted(counts.rows)} (the first: {counts.first_error}); start anew with --fresh."
    )
