"""`/v1/batches`: what is asked of a batch, and what is told of it, in OpenAI's form."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from penstock.schemas.batch import Metadata

HOUR = 3_600
MAX_WINDOW_HOURS = 720
MIN_LIFETIME, MAX_LIFETIME = HOUR, 30 * 24 * HOUR  # seconds, of an output file

Endpoint = Literal["/v1/chat/completions", "/v1/completions"]
Status = Literal[
    "validating",
    "failed",
    "in_progress",
    "finalizing",
    "completed",
    "expired",
    "cancelling",
    "cancelled",
]


class OutputExpiresAfter(BaseModel):
    """How long the output is kept."""

    model_config = ConfigDict(extra="forbid", strict=True)

    anchor: Literal["created_at"] = Field(description="When the files were complete.")
    seconds: int = Field(ge=MIN_LIFETIME, le=MAX_LIFETIME)


class BatchCreate(BaseModel):
    """The body of `POST /v1/batches`."""

    model_config = ConfigDict(extra="forbid", strict=True)

    input_file_id: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,64}$")]
    endpoint: Endpoint
    completion_window: str = Field(
        pattern=r"^[1-9][0-9]{0,2}h$",
        description=f"Hours until what is not done expires, as `24h`; {MAX_WINDOW_HOURS} at most.",
    )
    metadata: Metadata | None = None
    output_expires_after: OutputExpiresAfter | None = None
    on_invalid_line: Literal["fail", "quarantine"] = Field(
        default="fail",
        description="`quarantine`: the good lines run, and the others are in the error file.",
    )
    priority: int = Field(
        default=0,
        ge=-100,
        le=100,
        description="Higher is claimed first among your jobs; a step counts as ten minutes of age.",
    )


class RequestCounts(BaseModel):
    """Lines by outcome so far."""

    total: int
    completed: int
    failed: int


class InputTokensDetails(BaseModel):
    cached_tokens: int = 0


class OutputTokensDetails(BaseModel):
    reasoning_tokens: int = 0


class BatchUsage(BaseModel):
    """Tokens of all lines that have an outcome."""

    input_tokens: int
    input_tokens_details: InputTokensDetails = Field(default_factory=InputTokensDetails)
    output_tokens: int
    output_tokens_details: OutputTokensDetails = Field(default_factory=OutputTokensDetails)
    total_tokens: int


class BatchError(BaseModel):
    """What is wrong with a line of the input file, or with all of it."""

    code: str
    message: str
    param: str | None = None
    line: int | None = None


class BatchErrors(BaseModel):
    object: Literal["list"] = "list"
    data: list[BatchError]


class BatchObject(BaseModel):
    """One batch. Times are seconds since 1970."""

    id: str
    object: Literal["batch"] = "batch"
    endpoint: Endpoint
    model: str | None
    errors: BatchErrors | None
    input_file_id: str
    completion_window: str
    status: Status
    output_file_id: str | None = Field(description="As soon as a line has a result.")
    error_file_id: str | None = Field(description="As soon as a line has failed.")
    created_at: int
    in_progress_at: int | None
    expires_at: int | None
    finalizing_at: int | None
    completed_at: int | None
    failed_at: int | None
    expired_at: int | None
    cancelling_at: int | None
    cancelled_at: int | None
    request_counts: RequestCounts
    usage: BatchUsage
    metadata: Metadata | None


class BatchPage(BaseModel):
    """A page of batches, newest first; `last_id` is the next one's `after`."""

    object: Literal["list"] = "list"
    data: list[BatchObject]
    first_id: str | None
    last_id: str | None
    has_more: bool
