"""What of a request went wrong, whether to send it again, and when. Sends nothing itself.

The loop is the client's own because the usual libraries report each retry to the process's
global logger, which in a user's program may be standard output.
"""

from __future__ import annotations

import random
import time
from dataclasses import dataclass
from http import HTTPStatus

import httpx2

from penstock.client.call import Call, Repeat
from penstock.client.problem import error_of, tells_outcome
from penstock.errors import PenstockError, Unavailable

FIRST_WAIT, LONGEST_WAIT = 0.1, 5.0  # seconds between two attempts
UNSENT = httpx2.ConnectError | httpx2.ConnectTimeout | httpx2.PoolTimeout
AWAY = frozenset(
    {
        HTTPStatus.REQUEST_TIMEOUT,
        HTTPStatus.BAD_GATEWAY,
        HTTPStatus.SERVICE_UNAVAILABLE,
        HTTPStatus.GATEWAY_TIMEOUT,
    }
)


@dataclass(frozen=True, slots=True)
class Failure:
    """Why an attempt brought nothing. `after`: seconds that the service asked for."""

    error: PenstockError
    again: bool
    after: float | None = None


class Patience:
    """How long to go on trying: `limit` seconds after the first failure since the last success."""

    def __init__(self, limit: float) -> None:
        self._limit = limit
        self.renew()

    def renew(self) -> None:
        """Something came."""
        self._wait = FIRST_WAIT
        self._first_failure: float | None = None

    def pause(self, failure: Failure) -> float:
        """Seconds to wait before the next attempt. Raises the failure's error where none is due."""
        now = time.monotonic()
        first = now if self._first_failure is None else self._first_failure
        self._first_failure = first
        drawn = self._wait * random.uniform(0.5, 1)  # noqa: S311
        seconds = drawn if failure.after is None else failure.after
        if not failure.again or now + seconds > first + self._limit:
            raise failure.error
        self._wait = min(2 * self._wait, LONGEST_WAIT)
        return seconds


def no_answer(call: Call, base_url: str, error: httpx2.TransportError) -> Failure:
    """Of a request that brought no answer at all."""
    again = isinstance(error, UNSENT) or call.repeat is Repeat.SAFELY
    return Failure(Unavailable(f"No answer from {base_url}: {_reason(error)}."), again)


def refused(call: Call, response: httpx2.Response) -> Failure:
    """Of an answer above 399, whose body has been read."""
    after = _retry_after(response)
    error = error_of(response.status_code, response.content)
    error.retry_after = after
    return Failure(error, _is_passing(response, error, call), after)


def _is_passing(response: httpx2.Response, error: PenstockError, call: Call) -> bool:
    status = response.status_code
    if status == HTTPStatus.CONFLICT:
        return call.keyed and not tells_outcome(response.content)
    if status == HTTPStatus.TOO_MANY_REQUESTS or not error.retryable:
        return error.retryable
    return status in AWAY and call.repeat is Repeat.SAFELY


def _retry_after(response: httpx2.Response) -> int | None:
    value = response.headers.get("Retry-After", "")
    return int(value) if value.isascii() and value.isdigit() else None


def _reason(error: httpx2.TransportError) -> str:
    if isinstance(error, httpx2.ConnectError | httpx2.ConnectTimeout):
        return "nothing accepts a connection there"
    if isinstance(error, httpx2.TimeoutException):
        return "it took too long"
    return "the connection broke"
