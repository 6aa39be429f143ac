"""What is asked on a WebSocket."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from penstock.schemas.chat import ChatRequest

Turn = Annotated[list[str], Field(min_length=2, max_length=2)]


class SocketQuestion(ChatRequest):
    """One message of the conversation that the address names. `history`, where it is given, stands
    for the earlier turns that are stored: what the user said and what was answered."""

    history: list[Turn] | None = Field(default=None, max_length=1_000)
