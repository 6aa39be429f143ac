"""`/batch-generate` and `/batch-result`: request and answer bodies."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from penstock.schemas.sampling import JobMode, SamplingFields

MAX_METADATA = 16
MetadataKey = Annotated[str, Field(min_length=1, max_length=64)]
MetadataValue = Annotated[str, Field(max_length=512)]
Metadata = Annotated[dict[MetadataKey, MetadataValue], Field(max_length=MAX_METADATA)]


class JobStatus(StrEnum):
    """What a client sees of a job's state."""

    QUEUED = "queued"
    PROCESSING = "processing"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"
    EXPIRED = "expired"

    @property
    def finished(self) -> bool:
        return self not in (JobStatus.QUEUED, JobStatus.PROCESSING)


class BatchFields(SamplingFields):
    """Everything in a `/batch-generate` body but `messages`, which are checked one by one."""

    mode: JobMode = Field(  # type: ignore[assignment]  # a job may ask for more than a chat
        default="generate",
        description="`score`: no text is drawn; the answer is the likeliest of `choices`, with a "
        "probability for each in `details`. `count`: nothing is computed; the answer is empty, "
        "`tokens` has the prompt's, and `details` the token ids of `choices`, if there are any.",
    )
    model: str | None = Field(default=None, max_length=256, description="Default: the one served.")
    system: str | None = Field(
        default=None, max_length=100_000, description="System prompt of all."
    )
    priority: int = Field(
        default=0,
        ge=-100,
        le=100,
        description="Higher is claimed first among your jobs; a step counts as ten minutes of age.",
    )
    expires_in: int | None = Field(
        default=None, ge=1, le=30 * 86_400, description="Seconds until unfinished prompts expire."
    )
    metadata: Metadata = Field(default_factory=dict, description="Returned as it was given.")
    callback_url: str | None = Field(
        default=None,
        max_length=2_048,
        description="Told of the job's end by a signed POST; at a public address.",
    )


class ChatMessage(BaseModel):
    """One turn of a conversation."""

    model_config = ConfigDict(extra="forbid")

    role: Literal["system", "user", "assistant"]
    content: str


class BatchRequest(BatchFields):
    """The whole `/batch-generate` body. The service itself checks `messages` one by one, so that a
    wrong one fails alone."""

    messages: list[str | list[ChatMessage]] = Field(min_length=1)


class Accepted(BaseModel):
    """202: the job is stored."""

    request_id: str
    status: JobStatus
    total: int


class Progress(BaseModel):
    """Prompts by outcome so far."""

    total: int
    completed: int
    failed: int


class Usage(BaseModel):
    """Tokens in and out of all prompts that have an outcome."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    saved_tokens: int = Field(
        default=0, description="Of the total: of answers to equal prompts, not computed again."
    )


class PromptFailure(BaseModel):
    """Why the prompt at `index` has no response."""

    index: int
    code: str
    message: str


class BatchResult(BaseModel):
    """`GET /batch-result/{id}`. `responses` is in input order, null where failed or not done.

    With `partial=true`, or `offset` and `limit`, `responses[i]` answers prompt `offset + i`.
    `details`, in the same order, is there when the job asked for more than texts:
    `{"probabilities": {label: p}, "scores": {label: log-likelihood}}` in mode `score` (the mean of
    each label's tokens with `length_normalized`),
    `{"choices": {label: [token ids]}}` in mode `count`,
    `{"completions": [{"text", "finish_reason", "tokens"}]}` with `n` above 1 (each with its
    `logprobs`), `{"logprobs": [{"token", "logprob", "top_logprobs"}]}` with `logprobs`.
    `tokens`, in the same order, are those in and out of each prompt, null where it has no outcome.
    `from_cache`, in the same order, is there when an answer is one to an equal prompt.
    """

    request_id: str
    status: JobStatus
    progress: Progress
    usage: Usage
    eta_seconds: float | None = None
    processing_time: float | None = Field(default=None, description="Seconds, when finished.")
    metadata: Metadata = Field(default_factory=dict)
    offset: int | None = None
    responses: list[str | None] | None = None
    details: list[dict[str, object] | None] | None = None
    tokens: list[tuple[int, int] | None] | None = None
    from_cache: list[bool] | None = None
    errors: list[PromptFailure] | None = None


class JobSummary(BaseModel):
    """One line of `GET /batch-generate`."""

    request_id: str
    status: JobStatus
    model: str
    progress: Progress
    created_at: float = Field(description="Seconds since 1970.")
    metadata: Metadata = Field(default_factory=dict)


class JobList(BaseModel):
    """Jobs, newest first."""

    data: list[JobSummary]
