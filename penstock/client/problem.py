"""Answers above 399 become errors of `penstock.errors`. Knows the problem body, no transport."""

from __future__ import annotations

from collections.abc import Iterator
from http import HTTPStatus

from pydantic import ValidationError

from penstock.errors import (
    Conflict,
    InvalidRequest,
    ModelError,
    NotFound,
    Overloaded,
    PenstockError,
    PromptError,
    TooLarge,
    Unauthorized,
    Unavailable,
)
from penstock.schemas.errors import ErrorBody

MAX_QUOTED = 200  # characters of a body that is not a problem

BY_STATUS: dict[int, type[PenstockError]] = {
    HTTPStatus.BAD_REQUEST: InvalidRequest,
    HTTPStatus.UNAUTHORIZED: Unauthorized,
    HTTPStatus.FORBIDDEN: Unauthorized,
    HTTPStatus.NOT_FOUND: NotFound,
    HTTPStatus.REQUEST_TIMEOUT: Unavailable,
    HTTPStatus.CONFLICT: Conflict,
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE: TooLarge,
    HTTPStatus.UNPROCESSABLE_ENTITY: InvalidRequest,
    HTTPStatus.TOO_MANY_REQUESTS: Overloaded,
    HTTPStatus.BAD_GATEWAY: Unavailable,
    HTTPStatus.SERVICE_UNAVAILABLE: Unavailable,
    HTTPStatus.GATEWAY_TIMEOUT: Unavailable,
}


def error_of(status: int, body: bytes) -> PenstockError:
    """The error that an answer stands for: by its code, else by its HTTP status."""
    try:
        problem = ErrorBody.model_validate_json(body)
    except ValidationError:
        text = body[: 4 * MAX_QUOTED].decode(errors="replace").strip()[:MAX_QUOTED]
        return BY_STATUS.get(status, PenstockError)(f"The service answered {status}: {text}")
    code = problem.error.code or ""
    kind = _by_code().get(code) or BY_STATUS.get(status, PenstockError)
    if code in set(PromptError) and status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        kind = ModelError  # the outcome of one prompt is final: asking again changes nothing
    return kind(problem.error.message or problem.detail, param=problem.error.param)


def tells_outcome(body: bytes) -> bool:
    """Whether an answer says what became of a prompt: asking again changes nothing of that."""
    try:
        return ErrorBody.model_validate_json(body).error.code in set(PromptError)
    except ValidationError:
        return False


def named_error(code: str | None, message: str) -> PenstockError:
    """The error that an event of a stream stands for."""
    if code in set(PromptError):
        return ModelError(message)
    return _by_code().get(code or "", PenstockError)(message)


def _by_code() -> dict[str, type[PenstockError]]:
    return {kind.code: kind for kind in _kinds(PenstockError) if kind is not PenstockError}


def _kinds(kind: type[PenstockError]) -> Iterator[type[PenstockError]]:
    yield kind
    for child in kind.__subclasses__():
        yield from _kinds(child)
