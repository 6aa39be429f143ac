"""What became of each prompt, read from a page of results or from an event. Asks nothing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from pydantic import BaseModel, ValidationError

from penstock.errors import PromptError
from penstock.schemas.batch import BatchResult


@dataclass(frozen=True, slots=True)
class Answer:
    """What became of the prompt at `index`: a text, or the code and the reason of its error.
    `detail` is what the job asked for beside the text, such as `{"probabilities": …}`; `tokens`
    those in and out, None where the service does not tell; `reused`: the answer to an equal
    prompt, which nothing was computed for."""

    index: int
    text: str | None
    code: str | None = None
    message: str | None = None
    detail: Mapping[str, object] | None = None
    tokens: tuple[int, int] | None = None
    reused: bool = False


def stored(page: BatchResult, offset: int) -> Iterator[Answer]:
    """The answers that a page starting at `offset` has; prompts still open are left out."""
    failures = {failure.index: failure for failure in page.errors or ()}
    details = dict(enumerate(page.details or (), start=offset))
    tokens = dict(enumerate(page.tokens or (), start=offset))
    reused = dict(enumerate(page.from_cache or (), start=offset))
    for index, text in enumerate(page.responses or (), start=offset):
        failure, used = failures.get(index), tokens.get(index)
        if text is not None:
            again = reused.get(index, False)
            yield Answer(index, text, detail=details.get(index), tokens=used, reused=again)
        elif failure is not None:
            yield Answer(index, None, failure.code, failure.message, tokens=used)


def every(page: BatchResult, offset: int) -> Iterator[Answer]:
    """An answer for each prompt of the page, the open ones included."""
    found = {answer.index: answer for answer in stored(page, offset)}
    for index in range(offset, offset + len(page.responses or ())):
        missing = Answer(index, None, PromptError.ENGINE, "It has no answer yet.")
        yield found.get(index, missing)


class _Error(BaseModel):
    code: str
    message: str


class _ResultEvent(BaseModel):
    index: int
    response: str | None = None
    error: _Error | None = None
    detail: dict[str, object] | None = None
    prompt_tokens: int | None = None
    completion_tokens: int = 0
    from_cache: bool = False

    @property
    def tokens(self) -> tuple[int, int] | None:
        return None if self.prompt_tokens is None else (self.prompt_tokens, self.completion_tokens)


def pushed(data: str) -> Answer | None:
    """The answer in a `result` event; None for one that is not understood, to be read later."""
    try:
        event = _ResultEvent.model_validate_json(data)
    except ValidationError:
        return None
    if event.error is not None:
        error = event.error
        return Answer(event.index, None, error.code, error.message, tokens=event.tokens)
    if event.response is None:
        return None
    return Answer(
        event.index,
        event.response,
        detail=event.detail,
        tokens=event.tokens,
        reused=event.from_cache,
    )


class Told:
    """Which prompts' answers were handed on already: a byte for each prompt, no answer kept."""

    def __init__(self) -> None:
        self._told = bytearray()
        self.count = 0
        self.last_event = ""  #: id, to go on after it

    def expect(self, total: int) -> None:
        """The job has so many prompts."""
        self._told.extend(bytes(max(0, total - len(self._told))))

    def add(self, index: int) -> bool:
        """Whether this one is new."""
        self.expect(index + 1)
        if self._told[index]:
            return False
        self._told[index] = 1
        self.count += 1
        return True

    def first_open(self, start: int) -> int:
        """The first prompt from `start` on without an answer; the number of all where none is."""
        found = self._told.find(0, start)
        return len(self._told) if found < 0 else found
