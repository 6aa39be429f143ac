"""The one error body: RFC 9457's problem and OpenAI's `error` member at once."""

from __future__ import annotations

from pydantic import BaseModel


class ErrorDetail(BaseModel):
    """What an OpenAI client reads."""

    message: str
    type: str
    param: str | None = None
    code: str | None = None


class ErrorBody(BaseModel):
    """What every answer above 399 carries, as `application/problem+json`."""

    type: str
    title: str
    status: int
    detail: str
    instance: str
    error: ErrorDetail
