"""Every error Penstock raises on purpose.

    PenstockError
    ├── InvalidRequest        a field is wrong; says which
    ├── IdempotencyMismatch   the key was used before with another body
    ├── NotFound              unknown, or somebody else's
    ├── Conflict              not possible in the present state
    ├── TooLarge              a limit on size was passed
    ├── Unauthorized          no key, or an unknown one
    ├── Forbidden             the key is not for this
    ├── LimitReached          the owner has as much in the queue as it may have
    ├── Unavailable           a store or the engine is away; try again
    │   └── Overloaded        a bound was reached; try again later
    ├── ModelError
    │   ├── ModelNotFound     no such model where it was looked for
    │   ├── UnsafeModel       weights or code that Penstock refuses to load
    │   └── OutOfMemory       the device could not hold the step
    └── StackError            the embedded stack cannot start; the sentence says why

The docstring of a class is its default message. HTTP statuses live in `api/errors.py` alone.
"""

from __future__ import annotations

from enum import StrEnum
from typing import ClassVar


class PenstockError(Exception):
    """Something went wrong."""

    code: ClassVar[str] = "error"
    retryable: ClassVar[bool] = False

    def __init__(
        self,
        message: str | None = None,
        *,
        param: str | None = None,
        retry_after: int | None = None,
    ) -> None:
        self.message = message or (type(self).__doc__ or "").strip()
        self.param = param
        self.retry_after = retry_after  #: seconds, where it is known
        super().__init__(self.message)


class InvalidRequest(PenstockError):
    """The request is not valid."""

    code = "invalid_request"


class IdempotencyMismatch(PenstockError):
    """This Idempotency-Key was used before with another body."""

    code = "idempotency_mismatch"


class NotFound(PenstockError):
    """There is nothing under this id."""

    code = "not_found"


class Conflict(PenstockError):
    """This is not possible in the present state."""

    code = "conflict"


class TooLarge(PenstockError):
    """The request is larger than the limit."""

    code = "too_large"


class Unauthorized(PenstockError):
    """A valid API key is needed."""

    code = "invalid_api_key"


class Forbidden(PenstockError):
    """The API key is not for this."""

    code = "insufficient_scope"


class LimitReached(PenstockError):
    """You have as much in the queue as you may have."""

    code = "rate_limit_exceeded"
    retryable = True


class Unavailable(PenstockError):
    """A part of the service is away for the moment."""

    code = "unavailable"
    retryable = True


class Overloaded(Unavailable):
    """The service has as much work as it can take for the moment."""

    code = "overloaded"


class ModelError(PenstockError):
    """The model cannot be used."""

    code = "model_error"


class ModelNotFound(ModelError):
    """There is no such model."""

    code = "model_not_found"


class UnsafeModel(ModelError):
    """The model's files are of a kind that is not loaded, for safety."""

    code = "unsafe_model"


class OutOfMemory(ModelError):
    """The device could not hold the step."""

    code = "out_of_memory"
    retryable = True


class StackError(PenstockError):
    """The stack cannot start."""

    code = "stack_error"


class PromptError(StrEnum):
    """Why one prompt has an error for an outcome. Stored, and part of the contract."""

    EMPTY = "empty_prompt"  #: nothing but white space
    INVALID_TEXT = "invalid_text"  #: NUL or a lone surrogate
    INVALID_MESSAGE = "invalid_message"  #: not a string and not a list of chat messages
    INVALID_REQUEST = "invalid_request"  #: the model cannot serve the choices or the format
    TOO_LARGE = "prompt_too_large"  #: more bytes than the limit
    TOO_LONG = "context_length_exceeded"  #: more tokens than the model's context
    OUT_OF_MEMORY = "out_of_memory"  #: does not fit the device even alone
    ENGINE = "engine_error"  #: the model raised on this prompt, alone
    POISON = "poison"  #: the worker died each time this prompt ran alone
    CANCELLED = "cancelled"  #: the job was cancelled first
    EXPIRED = "expired"  #: the job's time ran out first
