"""What all prompts begin with. Knows prompts, no tokens."""

from __future__ import annotations

from itertools import takewhile

from penstock.annotation.records import Prompt


class SharedPrefix:
    """Feed it every prompt. Of conversations the earlier turns count as a whole."""

    def __init__(self) -> None:
        self._turns: list[dict[str, str]] | None = None
        self._plain = False

    def add(self, prompt: Prompt) -> None:
        turns = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt
        if self._turns is None:
            self._turns = turns
            self._plain = isinstance(prompt, str)
        else:
            self._turns = _common(self._turns, turns)

    @property
    def prompt(self) -> Prompt | None:
        """The shared beginning as a prompt of its own, None where nothing is shared."""
        if not self._turns or not self._turns[-1]["content"].strip():
            return None
        return self._turns[0]["content"] if self._plain else self._turns


def _common(known: list[dict[str, str]], turns: list[dict[str, str]]) -> list[dict[str, str]]:
    shared: list[dict[str, str]] = []
    for one, other in zip(known, turns, strict=False):
        if one == other:
            shared.append(one)
            continue
        if one["role"] == other["role"]:
            beginning = _beginning(one["content"], other["content"])
            shared.append({"role": one["role"], "content": beginning})
        break
    return shared


def _beginning(one: str, other: str) -> str:
    if other.startswith(one):
        return one
    same = takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False))
    return one[: sum(1 for _ in same)]
