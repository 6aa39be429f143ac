"""`/chat`: request and answer bodies."""

from __future__ import annotations

from typing import Annotated

from pydantic import AliasChoices, BaseModel, Field, model_validator

from penstock.schemas.sampling import SamplingFields

Name = Annotated[str, Field(min_length=1, max_length=128)]


class ChatRequest(SamplingFields):
    """One message of a conversation. `query` may stand for `message`, and `user_id` with
    `session_id` for `conversation_id`."""

    message: str = Field(validation_alias=AliasChoices("message", "query"))
    conversation_id: Name | None = None
    user_id: Name | None = None
    session_id: Name | None = None
    model: str | None = Field(default=None, max_length=256)
    system: str | None = Field(default=None, max_length=100_000)
    reset: bool = Field(default=False, description="Forget the earlier turns first.")
    wait: bool = Field(default=True, description="False: 202 with a request id to poll.")

    @model_validator(mode="after")
    def _one_way_to_name_it(self) -> ChatRequest:
        if (self.user_id is None) != (self.session_id is None):
            raise ValueError("user_id and session_id go together")
        if self.conversation_id is not None and self.user_id is not None:
            raise ValueError("give conversation_id, or user_id with session_id, not both")
        return self


class ChatAnswer(BaseModel):
    """The reply, when the client waited for it."""

    response: str
    conversation_id: str
    request_id: str
    tokens_generated: int
    from_cache: bool = Field(
        default=False, description="The answer to an equal prompt, computed before."
    )
    dropped_turns: int = Field(
        default=0,
        description="Earlier turns that were not sent along: too many, or too long for the model.",
    )
    detail: dict[str, object] | None = Field(
        default=None, description="As in `details` of `/batch-result`, where it was asked for."
    )


class ChatAccepted(BaseModel):
    """202: the message is stored; poll `/batch-result/<request_id>`."""

    request_id: str
    conversation_id: str
    status: str = "queued"
