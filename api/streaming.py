"""Follows the answer to a chat: text as it comes, then the stored outcome.

Redis gives hints, PostgreSQL the truth: what was not sent as a piece is sent before the outcome,
and where the outcome says something else the stream ends as interrupted. Knows no HTTP.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from dataclasses import dataclass

from api import chats
from api.dependencies import Parts
from api.errors import ChatUnanswered, Interrupted
from api.marks import Mark
from penstock.errors import Unavailable
from storage.records import Batch, ResultRow
from workers.pieces import Attempt, Piece


@dataclass(frozen=True, slots=True)
class TextPiece:
    """More of an answer; `offset`: characters of it before this."""

    text: str
    offset: int


@dataclass(frozen=True, slots=True)
class Ended:
    """The stored outcome, and what it has beside its text."""

    row: ResultRow
    detail: str | None


async def follow(
    parts: Parts, batch: Batch, *, offset: int = 0, check: int | None = None
) -> AsyncGenerator[TextPiece | Ended, None]:
    """The answer to a chat from character `offset` on, of which `check` is the checksum of what was
    before (`Mark`). Ends with `Ended`; where the prompt failed its row says why.

    Raises `ChatUnanswered` when nothing comes for too long, or the process is about to end, and
    `Interrupted` when a second run says something else than what was sent. The outcome can be
    polled all the same. To cancel is the caller's part.
    """
    told = _Told(batch.id, Mark(offset, check if offset else 0))
    clock = asyncio.get_running_loop().time
    limit = parts.config.chat_timeout
    deadline = clock() + limit
    try:
        with (
            parts.waiters.watch(batch.id) as watch,
            parts.pieces.feed(batch.id, watch.nudge) as feed,
        ):
            while True:
                if feed.ready:
                    place = told.mark.offset
                    if text := "".join([told.take(piece) for piece in await feed.take()]):
                        yield TextPiece(text, place)
                    deadline = clock() + limit
                if watch.news:
                    watch.news = False
                    found = await parts.offload.read(lambda conn: chats.outcome(conn, batch))
                    if found is not None:
                        place = told.mark.offset
                        if rest := told.rest(found[0]):
                            yield TextPiece(rest, place)
                        yield Ended(*found)
                        return
                if parts.waiters.closing or clock() >= deadline:
                    raise ChatUnanswered(batch.id)
                if not feed.ready and not watch.news:
                    await watch.wait(deadline - clock())
    except Unavailable as error:
        raise ChatUnanswered(batch.id) from error


class _Told:
    """What one client has of an answer, and how it goes on, whichever attempt a piece is of."""

    def __init__(self, batch_id: str, mark: Mark) -> None:
        self._batch_id = batch_id
        self.mark = mark
        self._attempt: Attempt = (0, 0)
        #: How far the present attempt is read; None where a part of it is missing.
        self._read: Mark | None = Mark()

    def take(self, piece: Piece) -> str:
        """The part of a piece that is new. Raises `Interrupted`."""
        if piece.attempt < self._attempt:
            return ""
        if piece.attempt > self._attempt:
            self._attempt, self._read = piece.attempt, Mark()
        text = self._unread(piece)
        if self._read is None or not text:
            return ""
        known = max(0, self.mark.offset - self._read.offset)
        read = self._read.after(text[:known])
        if read.offset < self.mark.offset:
            self._read = read
            return ""
        if None not in (read.check, self.mark.check) and read.check != self.mark.check:
            raise Interrupted(self._batch_id)
        fresh = text[known:]
        self.mark = self._read = Mark(read.offset, self.mark.check or read.check).after(fresh)
        return fresh

    def rest(self, row: ResultRow) -> str:
        """What of the outcome was not sent yet. Raises `Interrupted`."""
        if row.text is None:
            return ""
        if not self.mark.fits(row.text):
            raise Interrupted(self._batch_id)
        return row.text[self.mark.offset :]

    def _unread(self, piece: Piece) -> str:
        """The part behind what is read of its attempt. A hole before it, which only the outcome can
        fill, leaves nothing; one in what the client has already does no harm."""
        if self._read is None:
            return ""
        if piece.offset > self._read.offset:
            behind = piece.offset <= self.mark.offset
            self._read = Mark(piece.offset, None) if behind else None
            return piece.text if behind else ""
        return piece.text[self._read.offset - piece.offset :]
