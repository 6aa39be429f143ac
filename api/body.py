"""Reads request bodies within bounds: media type, size, time, and bytes of all requests at once.

Knows nothing of what is in them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from starlette.datastructures import Headers
from starlette.requests import Request

from api.errors import BodyTimeout, UnsupportedMedia
from penstock.errors import InvalidRequest, Overloaded, TooLarge

READ_TIMEOUT: Final = 30.0  # seconds without a byte
PATIENCE: Final = 60.0  # seconds for a small body, however it drips
SLOWEST: Final = 20_000  # bytes a second, on the whole, of what takes longer


class Hold:
    """One request's or socket's share of the budget."""

    def __init__(self, budget: BodyBudget) -> None:
        self._budget = budget
        self.bytes = 0

    def take(self, count: int) -> None:
        """Raises `Overloaded` when the requests in flight hold too many bytes together."""
        if self._budget.used + count > self._budget.limit:
            raise Overloaded("Too many bytes of requests are being read at once.")
        self._budget.used += count
        self.bytes += count

    def give(self, count: int) -> None:
        """Back, of what was taken."""
        self._budget.used -= count
        self.bytes -= count


class BodyBudget:
    """Bytes of bodies in memory, from reading to stored. For one event loop; never waits."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.used = 0

    @contextmanager
    def hold(self) -> Iterator[Hold]:
        hold = Hold(self)
        try:
            yield hold
        finally:
            self.used -= hold.bytes


async def read_body(request: Request, hold: Hold, limit: int) -> bytearray:
    """The whole body of at most `limit` bytes, however it is sent."""
    _check_headers(request.headers, limit)
    body = bytearray()
    clock = asyncio.get_running_loop().time
    try:
        patient_until = clock() + PATIENCE
        async with asyncio.timeout(READ_TIMEOUT) as deadline:
            async for chunk in request.stream():
                hold.take(len(chunk))
                if len(body) + len(chunk) > limit:
                    raise _too_large(limit)
                body += chunk
                deadline.reschedule(
                    min(clock() + READ_TIMEOUT, patient_until + len(body) / SLOWEST)
                )
    except TimeoutError:
        raise BodyTimeout from None
    return body


def _check_headers(headers: Headers, limit: int) -> None:
    # Also a guard of a server without keys: a foreign web page cannot send this type unasked.
    media = headers.get("content-type", "").partition(";")[0].strip().lower()
    if media != "application/json" and not (
        media.startswith("application/") and media.endswith("+json")
    ):
        raise UnsupportedMedia(param="Content-Type")
    check_length(headers, limit)


def check_length(headers: Headers, limit: int) -> None:
    """Refuse a body that is encoded, or says that it is too large."""
    if headers.get("content-encoding", "identity").strip().lower() != "identity":
        raise UnsupportedMedia(param="Content-Encoding")
    length = headers.get("content-length", "0")
    if not (length.isascii() and length.isdigit() and len(length) < 20):
        raise InvalidRequest("`Content-Length` is not a number.", param="Content-Length")
    if int(length) > limit:
        raise _too_large(limit)


def _too_large(limit: int) -> TooLarge:
    return TooLarge(f"The body is larger than {limit} bytes.")
