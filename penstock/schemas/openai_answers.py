"""`/v1/chat/completions`, `/v1/completions` and `/v1/models`: answer bodies, as OpenAI has them.

`probabilities` and `scores` are Penstock's own, in mode `score`.
"""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from penstock.schemas.batch import Usage

FinishReason = Literal["stop", "length"]


class _Answer(BaseModel):
    model_config = ConfigDict(extra="forbid")


class TokenLogprob(_Answer):
    """A token. `bytes` is null where it is a part of a character."""

    token: str
    logprob: float
    bytes: list[int] | None


class DrawnToken(TokenLogprob):
    """A token of an answer, and the likeliest ones in its place."""

    top_logprobs: list[TokenLogprob]


class ChatLogprobs(_Answer):
    """For each token of an answer."""

    content: list[DrawnToken]
    refusal: None


class TextLogprobs(_Answer):
    """The same as lists beside each other; offsets are characters of the answer."""

    tokens: list[str]
    token_logprobs: list[float]
    top_logprobs: list[dict[str, float]] | None
    text_offset: list[int]


class AssistantMessage(_Answer):
    """What the model says."""

    role: Literal["assistant"]
    content: str
    refusal: None


class _Choice(_Answer):
    index: int
    finish_reason: FinishReason
    probabilities: dict[str, float] = Field(default={}, description="Of each of `choices`.")
    scores: dict[str, float] = Field(default={}, description="Their log-likelihoods.")


class ChatChoice(_Choice):
    """One answer to a chat."""

    message: AssistantMessage
    logprobs: ChatLogprobs | None


class TextChoice(_Choice):
    """One way in which a text goes on."""

    text: str
    logprobs: TextLogprobs | None


class _Completion(_Answer):
    id: str = Field(description="Also of the stored request: see `/batch-result/{request_id}`.")
    created: int = Field(description="Seconds since 1970.")
    model: str
    usage: Usage


class ChatCompletion(_Completion):
    """A chat's answers."""

    object: Literal["chat.completion"]
    choices: list[ChatChoice]


class TextCompletion(_Completion):
    """A text's continuations."""

    object: Literal["text_completion"]
    choices: list[TextChoice]


class Model(_Answer):
    """A model that requests may name."""

    id: str
    object: Literal["model"] = "model"
    created: int = Field(description="Since when this server has offered it: seconds since 1970.")
    owned_by: str = "penstock"


class ModelList(_Answer):
    """Every model that requests may name."""

    object: Literal["list"] = "list"
    data: list[Model]
