"""A chat's earlier turns beside the model's context: as many as fit, and how many do not."""

from __future__ import annotations

from pathlib import Path

import pytest

from batching.requests import EngineRequest
from models.fake import FakeCodec
from models.runner import Codec
from penstock.errors import PromptError
from storage.records import ClaimedRequest, ClaimedShard, Messages
from storage.states import Lane
from workers.lease import Lease
from workers.prompts import Prompts, Refused

TINY = Path(__file__).parents[3] / "assets" / "penstock-tiny"
SYSTEM = "Answer with one word."
WORDS = "What does shutil.copytree do, and how does it differ from shutil.copy? " * 6


@pytest.fixture(scope="module", params=["fake", "tiny"])
def codec(request: pytest.FixtureRequest) -> Codec:
    if request.param == "fake":
        return FakeCodec()
    from transformers import AutoTokenizer

    from models.codec import TokenizerCodec

    return TokenizerCodec(AutoTokenizer.from_pretrained(TINY))


def _turns(count: int) -> Messages:
    return tuple(
        message
        for number in range(count)
        for message in (("user", f"{number} {WORDS}"), ("assistant", WORDS))
    )


def _lease(request: ClaimedRequest, *, trim: bool = True, max_tokens: int = 200) -> Lease:
    params: dict[str, object] = {"max_tokens": max_tokens, "trim": trim}
    return Lease(
        ClaimedShard(7, 3, "chat_1", Lane.EXPRESS, False, "owner", params, SYSTEM, (request,))
    )


def _ask(codec: Codec, context: int, lease: Lease) -> EngineRequest:
    ((_, asked),) = Prompts(codec, context).of(lease)
    assert isinstance(asked, EngineRequest)
    return asked


def test_the_oldest_turns_go_until_prompt_and_answer_fit(codec: Codec) -> None:
    turns, last = _turns(8), ("user", "And now?")
    whole = len(codec.encode_chat((("system", SYSTEM), *turns, last)))
    context = whole // 2
    request = ClaimedRequest(0, (last,), history=turns, omitted=5)
    lease = _lease(request)

    asked = _ask(codec, context, lease)

    dropped = lease.dropped[0] - 5
    room = min(200, context // 4)
    assert 0 < dropped < 8
    kept = (("system", SYSTEM), *turns[2 * dropped :], last)
    assert asked.prompt == codec.encode_chat(kept)
    assert len(asked.prompt) <= context - room
    one_more = (("system", SYSTEM), *turns[2 * dropped - 2 :], last)
    assert len(codec.encode_chat(one_more)) > context - room


def test_what_fits_is_sent_whole(codec: Codec) -> None:
    turns, last = _turns(2), ("user", "And now?")
    request = ClaimedRequest(0, (last,), history=turns)
    lease = _lease(request, max_tokens=100_000)

    asked = _ask(codec, 10_000, lease)

    assert asked.prompt == codec.encode_chat((("system", SYSTEM), *turns, last))
    assert lease.dropped == {0: 0}


def test_the_last_message_may_take_the_room_of_the_answer_but_not_more(codec: Codec) -> None:
    last = ("user", WORDS)
    size = len(codec.encode_chat((("system", SYSTEM), last)))
    request = ClaimedRequest(0, (last,), history=_turns(2))
    lease = _lease(request)

    asked = _ask(codec, size + 1, lease)

    assert (len(asked.prompt), lease.dropped) == (size, {0: 2})
    ((_, refused),) = Prompts(codec, size).of(lease)
    assert isinstance(refused, Refused)
    assert (refused.reason, refused.tokens) == (PromptError.TOO_LONG, size)


def test_a_history_that_a_client_sent_is_trimmed_where_it_asked_for_that(codec: Codec) -> None:
    messages = (("system", SYSTEM), *_turns(4), ("user", "And now?"))
    context = len(codec.encode_chat(messages)) - 1
    request = ClaimedRequest(0, messages)
    lease = _lease(request)

    asked = _ask(codec, context, lease)

    dropped = lease.dropped[0]
    assert dropped > 0
    assert asked.prompt == codec.encode_chat((messages[0], *messages[1 + 2 * dropped :]))
    ((_, untrimmed),) = Prompts(codec, context).of(_lease(request, trim=False))
    assert isinstance(untrimmed, Refused)
