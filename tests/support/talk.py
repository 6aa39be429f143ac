"""Turns of conversations, stored as the API stores them, and read as it reads them."""

from __future__ import annotations

from storage import conversations, intake, turns
from storage.database import Database
from storage.records import Batch, NewPrompt
from storage.states import Lane
from tests.support import jobs


def say(
    database: Database,
    conversation: str | None,
    message: str,
    *,
    owner: str = jobs.OWNER,
    reset: bool = False,
    history: int = 10,
    model: str = jobs.MODEL,
) -> tuple[str, Batch]:
    """The conversation's id, and the batch that will answer."""
    batch = jobs.new_batch(
        kind="chat",
        lane=Lane.EXPRESS,
        owner=owner,
        model=model,
        params={"max_tokens": 8, "temperature": 0.0, "trim": True},
    )
    with database.begin() as conn:
        opened = conversations.open_turn(
            conn,
            owner,
            conversation,
            reset=reset,
            batch_id=batch.id,
            message=message,
            history=history,
        )
        stored = intake.create_batch(conn, batch, [NewPrompt((("user", message),))])
        turns.line_up(conn, batch.id)
    return opened, stored


def said(
    database: Database, conversation: str, *, owner: str = jobs.OWNER
) -> list[tuple[str, str]]:
    """What was said and answered, oldest first."""
    with database.begin() as conn:
        found = conversations.last_turns(conn, owner, conversation, 500)
    messages = []
    for turn in found:
        messages.append(("user", turn.message))
        if turn.answer is not None:
            messages.append(("assistant", turn.answer))
    return messages
