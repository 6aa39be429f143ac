"""Errors to answers: the only place that knows HTTP statuses.

One body is RFC 9457's problem and OpenAI's `error` at once. No traceback, file path or SQL gets in.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, Final

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from penstock import errors as e
from penstock.errors import PromptError
from penstock.schemas.errors import ErrorBody, ErrorDetail

MEDIA_TYPE: Final = "application/problem+json"
MAX_NAME: Final = 100  # characters of a client's own field name that are repeated to it
DEFAULT_RETRY_AFTER: Final = 2  # seconds
LOCATIONS: Final = frozenset({"body", "query", "path", "header"})


class MalformedBody(e.InvalidRequest):
    """The body is not valid JSON in UTF-8."""

    code = "malformed_body"


class UnsupportedMedia(e.InvalidRequest):
    """Send the body as application/json, without a content encoding."""

    code = "unsupported_media_type"


class BodyTimeout(e.InvalidRequest):
    """The body did not arrive in time."""

    code = "request_timeout"


class ChatFailed(e.PenstockError):
    """The message has no answer; `reason` says why, and `request_id` which request it was."""

    def __init__(self, reason: PromptError, message: str, request_id: str | None = None) -> None:
        of_message = reason in BAD_PROMPT and reason is not PromptError.INVALID_REQUEST
        super().__init__(message, param="message" if of_message else None)
        self.reason = reason
        self.request_id = request_id


class ChatUnanswered(e.Overloaded):
    """The answer is not there yet; it can be polled under its request_id."""

    code = "timeout"

    def __init__(self, request_id: str) -> None:
        super().__init__()
        self.request_id = request_id


class Interrupted(e.Conflict):
    """The prompt was run again and says something else than before; poll its request_id."""

    code = "interrupted"

    def __init__(self, request_id: str) -> None:
        super().__init__()
        self.request_id = request_id


BAD_PROMPT: Final = frozenset(
    {
        PromptError.EMPTY,
        PromptError.INVALID_TEXT,
        PromptError.INVALID_MESSAGE,
        PromptError.INVALID_REQUEST,
        PromptError.TOO_LARGE,
        PromptError.TOO_LONG,
        PromptError.OUT_OF_MEMORY,
    }
)
STOPPED: Final = frozenset({PromptError.CANCELLED, PromptError.EXPIRED})

#: The nearest class of an error's ancestry counts.
STATUSES: Final[Mapping[type[e.PenstockError], int]] = {
    e.PenstockError: 500,
    e.InvalidRequest: 422,
    MalformedBody: 400,
    UnsupportedMedia: 415,
    BodyTimeout: 408,
    e.IdempotencyMismatch: 422,
    e.NotFound: 404,
    e.Conflict: 409,
    e.TooLarge: 413,
    e.Unauthorized: 401,
    e.Forbidden: 403,
    e.LimitReached: 429,
    e.Unavailable: 503,
    e.ModelError: 503,
    e.ModelNotFound: 404,
}


@dataclass(frozen=True, slots=True)
class Problem:
    """One error on its way to a client."""

    status: int
    code: str
    message: str
    param: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    extra: Mapping[str, object] = field(default_factory=dict)


def problem_of(error: e.PenstockError) -> Problem:
    """What a client gets to see of an error that was raised on purpose."""
    status, code = _status(error), error.code
    if isinstance(error, ChatFailed):
        code = error.reason.value
    headers: dict[str, str] = {}
    if status in (429, 503):
        headers["Retry-After"] = str(error.retry_after or DEFAULT_RETRY_AFTER)
    if status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    request_id = getattr(error, "request_id", None)
    extra = {"request_id": request_id} if isinstance(request_id, str) else {}
    return Problem(status, code, error.message, error.param, headers, extra)


def _status(error: e.PenstockError) -> int:
    if isinstance(error, ChatFailed):
        if error.reason in BAD_PROMPT:
            return 422
        return 409 if error.reason in STOPPED else 503
    return next(STATUSES[cls] for cls in type(error).__mro__ if cls in STATUSES)


def internal_problem() -> Problem:
    """Something nobody thought of. The log has the rest, under the same X-Request-ID."""
    return Problem(500, "internal_error", "Something went wrong here. The server's log says more.")


def invalid_fields(found: Sequence[Any]) -> e.InvalidRequest:
    """The first of pydantic's errors as one sentence that names the field."""
    first = found[0]
    path = [str(part) for part in first["loc"] if part != "[key]"]
    if len(path) > 1 and path[0] in LOCATIONS:
        path = path[1:]
    param = printable(".".join(path)) or None
    if first["type"] == "extra_forbidden":
        return e.InvalidRequest(f"`{param}` is not a field of this request.", param=param)
    if first["type"] == "missing":
        return e.InvalidRequest(f"`{param}` is missing.", param=param)
    message = str(first["msg"]).removeprefix("Value error, ")
    sentence = message[:1].upper() + message[1:]
    return e.InvalidRequest(f"`{param}`: {sentence}." if param else f"{sentence}.", param=param)


def printable(name: str) -> str:
    """A client's own text, cut and cleaned so that an error can repeat it."""
    short = name if len(name) <= MAX_NAME else name[:MAX_NAME] + "…"
    return "".join(c if c.isprintable() else "\ufffd" for c in short)


def respond(problem: Problem, request_id: str) -> Response:
    """The answer. ASCII-only JSON, so that nothing a client sent can break its encoding."""
    status = problem.status
    body = ErrorBody(
        type=f"urn:penstock:error:{problem.code}",
        title=HTTPStatus(status).phrase,
        status=status,
        detail=problem.message,
        instance=f"urn:penstock:request:{request_id}",
        error=error_detail(problem),
    )
    content = json.dumps({**body.model_dump(), **problem.extra}).encode()
    return Response(content, status, dict(problem.headers), MEDIA_TYPE)


def error_detail(problem: Problem) -> ErrorDetail:
    """What an OpenAI client reads of it."""
    return ErrorDetail(
        message=problem.message,
        type=_openai_type(problem.status),
        param=problem.param,
        code=problem.code,
    )


def _openai_type(status: int) -> str:
    if status >= 500:
        return "server_error"
    return {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}.get(
        status, "invalid_request_error"
    )


def request_id_of(request: Request) -> str:
    """The X-Request-ID of this request, as the middleware chose it."""
    return str(request.scope.get("penstock.request_id", "unknown"))


def install(app: FastAPI) -> None:
    """Make `app` answer every error in the one shape."""

    async def on_penstock(request: Request, error: Exception) -> Response:
        assert isinstance(error, e.PenstockError)  # noqa: S101  # registered for it alone
        return respond(problem_of(error), request_id_of(request))

    async def on_validation(request: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)  # noqa: S101
        return respond(problem_of(invalid_fields(error.errors())), request_id_of(request))

    async def on_http(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)  # noqa: S101
        phrase = HTTPStatus(error.status_code).phrase
        code = phrase.lower().replace(" ", "_").replace("-", "_")
        headers = dict(error.headers or {})
        return respond(
            Problem(error.status_code, code, f"{phrase}.", headers=headers), request_id_of(request)
        )

    async def on_disconnect(request: Request, error: Exception) -> Response:
        return Response(status_code=400)  # nobody reads it

    app.add_exception_handler(e.PenstockError, on_penstock)
    app.add_exception_handler(RequestValidationError, on_validation)
    app.add_exception_handler(HTTPException, on_http)
    app.add_exception_handler(ClientDisconnect, on_disconnect)
