"""Batches of OpenAI's clients: bodies to records, records to answers. Knows no HTTP and no SQL."""

from __future__ import annotations

import datetime as dt

from api.intake import validated
from penstock.errors import InvalidRequest
from penstock.ids import new_id
from penstock.schemas.openai_batches import (
    HOUR,
    MAX_WINDOW_HOURS,
    BatchCreate,
    BatchError,
    BatchErrors,
    BatchObject,
    BatchUsage,
    RequestCounts,
    Status,
)
from storage.openai_batches import NewOpenaiBatch, OpenaiBatch
from storage.records import Batch, NewBatch
from storage.states import BatchStatus, Lane

#: Ours has two names more, for what theirs calls running, or failed where nothing was ever run.
STATUSES: dict[BatchStatus, Status] = {
    BatchStatus.VALIDATING: "validating",
    BatchStatus.QUEUED: "in_progress",
    BatchStatus.IN_PROGRESS: "in_progress",
    BatchStatus.FINALIZING: "finalizing",
    BatchStatus.CANCELLING: "cancelling",
    BatchStatus.COMPLETED: "completed",
    BatchStatus.FAILED: "failed",
    BatchStatus.CANCELLED: "cancelled",
    BatchStatus.EXPIRED: "expired",
}
ALL_FAILED = BatchError(
    code="all_requests_failed", message="Every request failed; the error file says why."
)


def parse_create(members: dict[str, object]) -> BatchCreate:
    """Raises `InvalidRequest`, with the first wrong field."""
    fields = validated(BatchCreate, members)
    if _hours(fields) > MAX_WINDOW_HOURS:
        raise InvalidRequest(
            f"`completion_window` may be {MAX_WINDOW_HOURS}h at most.", param="completion_window"
        )
    return fields


def _hours(fields: BatchCreate) -> int:
    return int(fields.completion_window.removesuffix("h"))


def new_job(fields: BatchCreate, owner: str, model: str, key: str | None, digest: str) -> NewBatch:
    """The job that the file's lines will be in; of which model, the lines will say."""
    return NewBatch(
        id=new_id("batch"),
        owner=owner,
        kind="batch",
        model=model,
        lane=Lane.BULK,
        params={},
        priority=fields.priority,
        metadata=fields.metadata or {},
        expires_in=_hours(fields) * HOUR,
        idempotency_key=key,
        body_hash=digest,
    )


def new_batch(fields: BatchCreate) -> NewOpenaiBatch:
    """What the batch has beside that."""
    lifetime = fields.output_expires_after
    return NewOpenaiBatch(
        endpoint=fields.endpoint,
        completion_window=fields.completion_window,
        quarantine=fields.on_invalid_line == "quarantine",
        output_lifetime=None if lifetime is None else lifetime.seconds,
        input_file_id=fields.input_file_id,
        output_file_id=new_id("file"),
        error_file_id=new_id("file"),
    )


def batch_object(batch: OpenaiBatch) -> BatchObject:
    """The batch as it stands."""
    job = batch.job
    began = batch.read_at if job.total else None
    cancelled = batch.ending == "cancelled"
    return BatchObject(
        id=job.id,
        endpoint=batch.endpoint,
        model=job.model if job.total else None,
        errors=_errors(batch),
        input_file_id=batch.input_file_id,
        completion_window=batch.completion_window,
        status=STATUSES[job.status],
        output_file_id=batch.output_file_id if job.completed else None,
        error_file_id=batch.error_file_id if job.failed else None,
        created_at=_required(job.created_at),
        in_progress_at=_seconds(began),
        expires_at=_seconds(job.expires_at),
        finalizing_at=None if cancelled or not job.total else _seconds(batch.ending_at),
        completed_at=_ended(job, BatchStatus.COMPLETED),
        failed_at=_ended(job, BatchStatus.FAILED),
        expired_at=_ended(job, BatchStatus.EXPIRED),
        cancelling_at=_seconds(batch.ending_at) if cancelled else None,
        cancelled_at=_ended(job, BatchStatus.CANCELLED),
        request_counts=RequestCounts(total=job.total, completed=job.completed, failed=job.failed),
        usage=BatchUsage(
            input_tokens=job.prompt_tokens,
            output_tokens=job.completion_tokens,
            total_tokens=job.prompt_tokens + job.completion_tokens,
        ),
        metadata=dict(job.metadata) or None,
    )


def _errors(batch: OpenaiBatch) -> BatchErrors | None:
    if batch.errors is not None:
        return BatchErrors(data=[BatchError.model_validate(one) for one in batch.errors])
    return BatchErrors(data=[ALL_FAILED]) if batch.job.status is BatchStatus.FAILED else None


def _ended(job: Batch, status: BatchStatus) -> int | None:
    return _seconds(job.finished_at) if job.status is status else None


def _seconds(time: dt.datetime | None) -> int | None:
    return None if time is None else _required(time)


def _required(time: dt.datetime) -> int:
    return int(time.timestamp())
