"""Earlier turns of a chat, as many of the last ones as fit. Knows neither tokenizer nor model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from storage.records import Messages

#: Of the context at most, for an answer that may be long: it seldom is, and earlier turns would go.
ANSWER_SHARE: Final = 4


@dataclass(frozen=True, slots=True)
class Fitted:
    """The tokens of what was kept, and how many turns were not."""

    prompt: tuple[int, ...]
    dropped: int


class Chat:
    """Messages as turns: each begins with what the user said. A system prompt in front of them, and
    the last turn, always stay."""

    def __init__(self, messages: Messages) -> None:
        opening = next((n for n, (role, _) in enumerate(messages) if role != "system"), 0)
        self._system, self._said = messages[:opening], messages[opening:]
        starts = [n for n, (role, _) in enumerate(self._said) if role == "user"]
        self._starts = [0, *starts[1:]]  # what an assistant said first belongs to the first turn

    @property
    def earlier(self) -> int:
        """Turns before the last one."""
        return len(self._starts) - 1

    def without(self, turns: int) -> Messages:
        """All but so many of the oldest turns."""
        return (*self._system, *self._said[self._starts[turns] :])


def room(context: int, answer: int) -> int:
    """Tokens that are kept free for an answer of at most `answer`."""
    return max(1, min(answer, context // ANSWER_SHARE))


def fit(chat: Chat, fitting: Callable[[Messages], tuple[int, ...] | None]) -> Fitted | None:
    """As many turns as `fitting` has tokens for; None: it has none for the last turn alone."""
    prompt = fitting(chat.without(0))
    if prompt is not None:
        return Fitted(prompt, 0)
    found = None
    low, high = 1, chat.earlier
    while low <= high:
        middle = (low + high) // 2
        prompt = fitting(chat.without(middle))
        if prompt is None:
            low = middle + 1
        else:
            found, high = Fitted(prompt, middle), middle - 1
    return found
