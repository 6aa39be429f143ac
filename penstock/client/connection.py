"""Requests with limits: a timeout for each, and bounded retries of those that are safe to repeat.

Knows HTTP; knows no route. The retry loop is its own because the usual libraries report each
retry to the process's global logger, which in a user's program may be standard output.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum, auto
from http import HTTPStatus
from typing import TypeVar

import httpx2
from pydantic import BaseModel, ValidationError

from penstock.client.body import BodySource
from penstock.client.problem import error_of
from penstock.errors import InvalidRequest, PenstockError, Unavailable

FIRST_WAIT, LONGEST_WAIT = 0.1, 5.0  # seconds between two attempts
CONNECT_TIMEOUT = 5.0  # seconds
LOOPBACK = {"localhost", "127.0.0.1", "::1"}


Model = TypeVar("Model", bound=BaseModel)


class Repeat(Enum):
    """When a request may be sent once more."""

    SAFELY = auto()  #: any number of times: it has the same effect as once
    IF_UNSENT = auto()  #: only when the service cannot have begun with it


@dataclass(frozen=True, slots=True)
class Call:
    """One request. `timeout` in seconds, for the answer to begin and between two pieces of it."""

    method: str
    path: str
    repeat: Repeat
    timeout: float
    params: Mapping[str, str | int | float] = field(default_factory=dict)
    json: object = None
    body: BodySource | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    #: Another request under the same Idempotency-Key may be on its way: 409 then means "later".
    keyed: bool = False


@dataclass(frozen=True, slots=True)
class _Failure:
    error: PenstockError
    again: bool
    after: float | None = None  #: seconds that the service asked for


class Connection:
    """A pool of connections to one service. Thread-safe."""

    def __init__(
        self,
        base_url: str,
        api_key: str | None,
        retry_for: float,
        on_retry: Callable[[PenstockError, float], None] | None,
    ) -> None:
        self.base_url = _checked_url(base_url)
        headers = {"Authorization": f"Bearer {_checked_key(api_key)}"} if api_key else {}
        # A proxy of the environment is for the world outside, never for this machine.
        proxied = httpx2.URL(self.base_url).host not in LOOPBACK
        self._http = httpx2.Client(base_url=self.base_url, headers=headers, trust_env=proxied)
        self._retry_for = retry_for
        self._on_retry = on_retry

    def close(self) -> None:
        self._http.close()

    def send(self, call: Call, *, retry_for: float | None = None) -> httpx2.Response:
        """The answer to `call`. Raises the error that the service named, or Unavailable when
        it stayed away for `retry_for` seconds after the first failed attempt."""
        limit = self._retry_for if retry_for is None else retry_for
        wait = FIRST_WAIT
        first_failure: float | None = None
        while True:
            answer = self._attempt(call)
            if isinstance(answer, httpx2.Response):
                return answer
            now = time.monotonic()
            first_failure = now if first_failure is None else first_failure
            pause = answer.after if answer.after is not None else wait * random.uniform(0.5, 1)  # noqa: S311
            if not answer.again or now + pause > first_failure + limit:
                raise answer.error
            if self._on_retry is not None:
                self._on_retry(answer.error, pause)
            time.sleep(pause)
            wait = min(2 * wait, LONGEST_WAIT)

    def fetch(self, call: Call, model: type[Model]) -> Model:
        """The answer to `call`, as a `model`. Raises as `send` does."""
        return read(self.send(call), model)

    def _attempt(self, call: Call) -> httpx2.Response | _Failure:
        try:
            response = self._http.request(
                call.method,
                call.path,
                params=dict(call.params),
                json=call.json,
                content=call.body() if call.body else None,
                headers=dict(call.headers),
                timeout=httpx2.Timeout(call.timeout, connect=CONNECT_TIMEOUT),
            )
        except httpx2.TransportError as error:
            unsent = isinstance(error, httpx2.ConnectError | httpx2.ConnectTimeout)
            again = unsent or call.repeat is Repeat.SAFELY
            return _Failure(
                Unavailable(f"No answer from {self.base_url}: {_reason(error)}."), again
            )
        if response.status_code < HTTPStatus.BAD_REQUEST:
            return response
        refusal = error_of(response.status_code, response.content)
        again = _is_passing(response.status_code, refusal, call)
        return _Failure(refusal, again, _retry_after(response))


def read(response: httpx2.Response, model: type[Model]) -> Model:
    """The body of an answer. Raises PenstockError when something else answered."""
    try:
        return model.model_validate_json(response.content)
    except ValidationError:
        raise PenstockError(
            f"{response.url.host}:{response.url.port} is no Penstock service of this version: "
            f"its answer to {response.request.method} {response.url.path} is not understood."
        ) from None


def _is_passing(status: int, error: PenstockError, call: Call) -> bool:
    if status == HTTPStatus.CONFLICT:
        return call.keyed
    if status == HTTPStatus.TOO_MANY_REQUESTS or not error.retryable:
        return error.retryable
    away = {
        HTTPStatus.REQUEST_TIMEOUT,
        HTTPStatus.BAD_GATEWAY,
        HTTPStatus.SERVICE_UNAVAILABLE,
        HTTPStatus.GATEWAY_TIMEOUT,
    }
    return status in away and call.repeat is Repeat.SAFELY


def _retry_after(response: httpx2.Response) -> float | None:
    value = response.headers.get("Retry-After", "")
    return float(value) if value.isascii() and value.isdigit() else None


def _reason(error: httpx2.TransportError) -> str:
    if isinstance(error, httpx2.ConnectError | httpx2.ConnectTimeout):
        return "nothing accepts a connection there"
    if isinstance(error, httpx2.TimeoutException):
        return "it took too long"
    return "the connection broke"


def _checked_url(url: str) -> str:
    try:
        parsed = httpx2.URL(url)
    except httpx2.InvalidURL:
        parsed = httpx2.URL("")
    if parsed.scheme not in {"http", "https"} or not parsed.host:
        raise InvalidRequest(
            f"{url!r} is no address of the form http://host:port.", param="base_url"
        )
    return url.rstrip("/")


def _checked_key(key: str) -> str:
    if not (key.isascii() and key.isprintable()) or " " in key:
        raise InvalidRequest("The API key has characters that no key has.", param="api_key")
    return key
