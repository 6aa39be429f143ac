"""`/api/v1/*`, the routes of the model-service family: request and answer bodies."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from penstock.schemas.sampling import SamplingFields

MAX_HISTORY = 1_000  # messages


class HistoryMessage(BaseModel):
    """What was said before."""

    model_config = ConfigDict(extra="forbid", strict=True)

    role: Literal["system", "user", "assistant"]
    content: str


class ModelChatRequest(SamplingFields):
    """A message, and what was said before it. Nothing of it is kept for a next one."""

    message: str
    history: list[HistoryMessage] = Field(
        default_factory=list,
        max_length=MAX_HISTORY,
        description="Oldest first; where it is too long for the model, the oldest turns are left "
        "out, and a system message in front stays.",
    )
    model: str | None = Field(default=None, max_length=256)
    system: str | None = Field(default=None, max_length=100_000)


class ModelChatAnswer(BaseModel):
    """The answer. One that failed has the common error body, with `success` false beside it."""

    response: str
    success: bool = True
    error: str | None = None
    request_id: str
    dropped_turns: int = 0


class ModelHealth(BaseModel):
    """`ok`, or `degraded` while no model is loaded."""

    status: str
    message: str


class ModelDescription(BaseModel):
    """What the newest live worker has loaded, or what it should have. Size in bytes."""

    model_name: str
    device: str
    is_loaded: bool
    model_size: int | None
    available: list[str] = Field(description="Models that `/api/v1/model/load` may name.")
    load_error: str | None = Field(
        default=None, description="Why the last model that was asked for could not be loaded."
    )


class LoadRequest(BaseModel):
    """One of the configured models, for one of the workers."""

    model_config = ConfigDict(extra="forbid", strict=True)

    model_name: str = Field(min_length=1, max_length=256)
    slot: str | None = Field(
        default=None, max_length=256, description="Which worker, where there are several."
    )


class LoadAnswer(BaseModel):
    """`loaded`: it serves this model. `loading`: it finishes what it runs, then loads it."""

    status: Literal["loaded", "loading"]
    message: str
