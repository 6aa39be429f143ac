"""Prompts one by one: what runs, what fails alone, and how fast."""

from __future__ import annotations

import json
import time

from api.intake import parse_job, to_prompt, to_prompts
from penstock.errors import PromptError


def test_a_string_is_a_user_message() -> None:
    assert to_prompt("hello", 5).messages == (("user", "hello"),)


def test_the_limit_counts_bytes_of_all_turns() -> None:
    turns = [{"role": "system", "content": "ab"}, {"role": "user", "content": "é"}]

    assert to_prompt(turns, 4).error_code is None
    assert to_prompt(turns, 3).error_code == PromptError.TOO_LARGE
    assert to_prompt("\ud800" * 4, 3).error_code == PromptError.TOO_LARGE


def test_the_last_message_must_say_something() -> None:
    silent = [{"role": "user", "content": "x"}, {"role": "user", "content": "\u2003"}]
    greeted = [{"role": "user", "content": ""}, {"role": "user", "content": "x"}]

    assert to_prompt(silent, 100).error_code == PromptError.EMPTY
    assert to_prompt(greeted, 100).error_code is None


def test_prompts_can_be_gone_through_again_when_a_transaction_is_repeated() -> None:
    messages: list[object] = ["a", "", "c"]

    assert list(to_prompts(messages, 9)) == list(to_prompts(messages, 9))


def test_fifty_thousand_prompts_are_read_and_checked_in_well_under_a_second() -> None:
    messages = [f"{i} " + "word " * 40 for i in range(50_000)]
    body = bytearray(json.dumps({"messages": messages}).encode())
    started = time.process_time()

    job = parse_job(body, 50_000)
    good = sum(prompt.error_code is None for prompt in to_prompts(job.messages, 512_000))

    assert good == 50_000
    assert time.process_time() - started < 1
