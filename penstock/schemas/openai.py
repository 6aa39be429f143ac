"""`/v1/chat/completions` and `/v1/completions`: request bodies, with OpenAI's defaults.

Only what has an effect here, and OpenAI's tags of a request; the service refuses its other
parameters by name, and reads `messages` and `prompt` by hand.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator

from penstock.schemas.batch import Metadata
from penstock.schemas.sampling import SamplingFields

MAX_TEXT_LOGPROBS = 5

Tag = Annotated[str | None, Field(max_length=512, description="For your own records; no effect.")]


class StreamOptions(BaseModel):
    """What a streamed answer has beside its text."""

    model_config = ConfigDict(extra="forbid", strict=True)

    include_usage: bool = Field(default=False, description="The tokens, in a last chunk.")


class CompletionFields(SamplingFields):
    """What both bodies share."""

    temperature: float = Field(default=1.0, ge=0, le=2, description="0 is greedy.")
    top_p: float = Field(default=1.0, gt=0, le=1, description="Nucleus: kept probability mass.")
    model: str | None = Field(default=None, max_length=256, description="Default: the one served.")
    stream: bool = Field(default=False, description="The answer as server-sent events.")
    stream_options: StreamOptions | None = None
    priority: int = Field(
        default=0,
        ge=-100,
        le=100,
        description="Higher is claimed first among your requests.",
    )
    metadata: Metadata = Field(default_factory=dict, description="Stored with the request.")
    user: Tag = None
    safety_identifier: Tag = None
    prompt_cache_key: Tag = None

    @field_validator("stream_options")
    @classmethod
    def _of_a_stream(
        cls, options: StreamOptions | None, info: ValidationInfo
    ) -> StreamOptions | None:
        if options is not None and not info.data.get("stream", True):
            raise ValueError("it needs `stream`: true")
        return options


class ChatCompletionFields(CompletionFields):
    """Everything in a `/v1/chat/completions` body but `messages`."""

    max_tokens: int = Field(
        default=2_048,
        ge=1,
        le=131_072,
        description="Most new tokens; `max_completion_tokens` may stand for it.",
    )


class TextCompletionFields(CompletionFields):
    """Everything in a `/v1/completions` body but `prompt` and `logprobs`, which is a number."""

    max_tokens: int = Field(default=16, ge=1, le=131_072, description="Most new tokens.")


class TextPart(BaseModel):
    """A part of a message; parts are joined by line ends."""

    model_config = ConfigDict(extra="forbid")

    type: Literal["text"]
    text: str


class CompletionMessage(BaseModel):
    """One turn. A developer is the system."""

    model_config = ConfigDict(extra="forbid")

    role: Literal["system", "developer", "user", "assistant"]
    content: str | Annotated[list[TextPart], Field(min_length=1)]


class ChatCompletionRequest(ChatCompletionFields):
    """The whole `/v1/chat/completions` body."""

    messages: Annotated[list[CompletionMessage], Field(min_length=1)]
    max_completion_tokens: int | None = Field(default=None, ge=1, le=131_072)


class TextCompletionRequest(TextCompletionFields):
    """The whole `/v1/completions` body. The prompt is read as it is, without a chat template."""

    prompt: str | Annotated[list[str], Field(min_length=1, max_length=1)]
    logprobs: int | None = Field(  # type: ignore[assignment]  # as OpenAI has it
        default=None,
        ge=0,
        le=MAX_TEXT_LOGPROBS,
        description="The log-probability of each token, and of so many of the likeliest.",
    )
    top_logprobs: None = Field(default=None, description="Not here: see `logprobs`.")
