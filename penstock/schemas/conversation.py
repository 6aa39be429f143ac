"""Conversations: answers of `/conversations`, and the lines of an export."""

from __future__ import annotations

from typing import Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from penstock.schemas.chat import Name


class ConversationSummary(BaseModel):
    """One of a list. Times are seconds since 1970."""

    conversation_id: str
    created_at: float
    updated_at: float = Field(description="When its last turn was said.")


class ConversationList(BaseModel):
    """A page of conversations, the last used first."""

    data: list[ConversationSummary]
    next: str | None = Field(default=None, description="`after` of the next page; null: no more.")


class ConversationMessage(BaseModel):
    """What was said, or answered. `timestamp` is in seconds since 1970."""

    role: Literal["user", "assistant"]
    content: str
    timestamp: float


class ConversationMessages(BaseModel):
    """One conversation, oldest message first. A turn without an answer has one message."""

    conversation_id: str
    messages: list[ConversationMessage]
    earlier: str | None = Field(
        default=None, description="`before` of the page before this one; null: no more."
    )


class ConversationDeleted(BaseModel):
    """What was forgotten."""

    conversation_id: str
    deleted: bool = True


class TurnLine(BaseModel):
    """One line of an export: what was said once, and its answer."""

    model_config = ConfigDict(extra="forbid")

    owner: str = Field(max_length=256)
    conversation_id: Name
    started_at: AwareDatetime
    said_at: AwareDatetime
    message: str
    answer: str | None = None
    answered_at: AwareDatetime | None = None
