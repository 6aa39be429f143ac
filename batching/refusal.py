"""Why a prompt gets an error for an outcome, in a sentence. Knows no thread and no queue."""

from __future__ import annotations

from batching.requests import EngineRequest
from batching.scheduler import Scheduler
from penstock.errors import InvalidRequest, OutOfMemory, PenstockError, PromptError


def refusal(
    request: EngineRequest, context: int, scheduler: Scheduler
) -> tuple[PromptError, str] | None:
    """Of a prompt that could never run. None: it could."""
    tokens = len(request.prompt)
    if not tokens:
        return PromptError.EMPTY, "The prompt has no tokens."
    if tokens >= context:
        message = f"The prompt has {tokens} tokens; the context is {context}."
        return PromptError.TOO_LONG, message
    longest = tokens + max(map(len, request.choices), default=0)
    if longest > context:
        message = f"Prompt and longest choice have {longest} tokens; the context is {context}."
        return PromptError.TOO_LONG, message
    too_large = scheduler.refusal(request)
    return None if too_large is None else (PromptError.OUT_OF_MEMORY, too_large)


def blame(error: Exception) -> tuple[PromptError, str]:
    """Of a prompt that failed with nothing beside it. Only what was raised on purpose is quoted:
    other messages may hold a part of the prompt."""
    if isinstance(error, OutOfMemory):
        message = "The device has not enough memory for this prompt, even alone."
        return PromptError.OUT_OF_MEMORY, message
    if isinstance(error, InvalidRequest):
        return PromptError.INVALID_REQUEST, error.message
    if isinstance(error, PenstockError):
        return PromptError.ENGINE, error.message
    return PromptError.ENGINE, f"The model raised {type(error).__name__} on this prompt."
