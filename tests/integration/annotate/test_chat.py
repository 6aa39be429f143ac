"""`penstock chat` on a running stack."""

from __future__ import annotations

import pytest

from examples.stdlib.stack import RunningStack
from penstock.client import Client
from tests.integration.annotate.conftest import Shell

pytestmark = pytest.mark.slow

GREEDY = ("--temperature", "0")


def test_a_question_at_the_command_line_is_answered(shell: Shell) -> None:
    assert shell.run("penstock", "chat", "hello there", *GREEDY) == (0, "echo: hello there\n", "")


def test_a_conversation_is_kept_until_reset_and_ends_with_its_input(
    shell: Shell, stack: RunningStack
) -> None:
    with Client(stack.api_url) as client:
        before = client.stats().conversations
        typed = "one\n\n/reset\ntwo\nthree\n"

        status, output, _ = shell.run("penstock", "chat", typed=typed)

        assert status == 0
        assert [line for line in output.splitlines() if "echo" in line] == [
            "echo: one",
            "echo: two",
            "echo: three",
        ]
        assert client.stats().conversations == before + 1
