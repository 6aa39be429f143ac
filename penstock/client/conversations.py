"""Conversations as the service tells them. Times are seconds since 1970."""

from __future__ import annotations

from pydantic import BaseModel


class Message(BaseModel):
    """What was said, or answered."""

    role: str
    content: str
    timestamp: float | None = None


class ConversationSummary(BaseModel):
    """A conversation without its messages."""

    conversation_id: str
    created_at: float | None = None
    updated_at: float | None = None


class Conversation(BaseModel):
    """A conversation's last turns, the oldest message first."""

    conversation_id: str
    messages: list[Message]


class ConversationList(BaseModel):
    """Conversations, the last used first."""

    data: list[ConversationSummary]
