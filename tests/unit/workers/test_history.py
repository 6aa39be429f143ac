"""Earlier turns go oldest first, until the rest fits."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from storage.records import Messages
from workers.history import Chat, fit, room

SYSTEM = ("system", "be brief")
TURNS = tuple(message for n in range(4) for message in (("user", f"q{n}"), ("assistant", f"a{n}")))
LAST = ("user", "now")


def _fits(most: int) -> Callable[[Messages], tuple[int, ...] | None]:
    """As many tokens as messages."""

    def fitting(kept: Messages) -> tuple[int, ...] | None:
        return tuple(range(len(kept))) if len(kept) <= most else None

    return fitting


@pytest.mark.parametrize(("most", "dropped"), [(10, 0), (9, 1), (8, 1), (7, 2), (4, 3), (2, 4)])
def test_as_few_turns_go_as_possible(most: int, dropped: int) -> None:
    fitted = fit(Chat((SYSTEM, *TURNS, LAST)), _fits(most))

    assert fitted is not None
    assert fitted.dropped == dropped
    assert len(fitted.prompt) == 10 - 2 * dropped


def test_the_system_prompt_and_the_last_turn_always_stay() -> None:
    chat = Chat((SYSTEM, *TURNS, LAST))

    assert chat.without(chat.earlier) == (SYSTEM, LAST)
    assert fit(chat, _fits(1)) is None


def test_what_an_assistant_said_first_goes_with_the_first_turn() -> None:
    chat = Chat((("assistant", "hello"), ("user", "hi"), ("assistant", "yes?"), LAST))

    assert chat.earlier == 1
    assert chat.without(1) == (LAST,)


@pytest.mark.parametrize("messages", [(LAST,), (SYSTEM, LAST), (SYSTEM,), (("assistant", "a"),)])
def test_a_single_turn_has_nothing_to_lose(messages: Messages) -> None:
    chat = Chat(messages)

    assert (chat.earlier, chat.without(0)) == (0, messages)


def test_an_answer_gets_its_room_but_no_more_than_a_quarter() -> None:
    assert [room(1_000, answer) for answer in (1, 200, 100_000)] == [1, 200, 250]
