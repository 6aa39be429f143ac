"""Chats to tokens, by the model's own template or a plain one. Knows no generation."""

from __future__ import annotations

import copy
import threading
from collections.abc import Sequence
from typing import Any

from jinja2.exceptions import TemplateError
from transformers import PreTrainedTokenizerBase

from penstock.errors import InvalidRequest

ROLES = {"system": "System", "user": "User", "assistant": "Assistant"}


class TokenizerCodec:
    """Text of users never becomes a control token, whatever it spells.

    Safe to call from several threads: a fast tokenizer keeps state between calls, so this has a
    copy of its own, behind a lock.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self._tokenizer: Any = copy.deepcopy(tokenizer)
        self._lock = threading.Lock()
        self.has_template = bool(self._tokenizer.chat_template)

    def encode_chat(self, messages: Sequence[tuple[str, str]]) -> tuple[int, ...]:
        """Raises InvalidRequest when the model's template does not take these messages."""
        with self._lock:
            if not self.has_template:
                return self._encode_plain(messages)
            try:
                return self._encode_template(messages)
            except TemplateError as error:
                merged = _merge_system(messages)
                if merged is None:
                    raise _refused(error) from error
            try:
                return self._encode_template(merged)
            except TemplateError as error:
                raise _refused(error) from error

    def _encode_template(self, messages: Sequence[tuple[str, str]]) -> tuple[int, ...]:
        # transformers renders templates in jinja2's sandbox.
        return tuple(
            self._tokenizer.apply_chat_template(
                [{"role": role, "content": content} for role, content in messages],
                add_generation_prompt=True,
                sanitize_control_tokens=True,
                return_dict=False,
            )
        )

    def _encode_plain(self, messages: Sequence[tuple[str, str]]) -> tuple[int, ...]:
        lines = [f"{ROLES.get(role, role.capitalize())}: {content}\n" for role, content in messages]
        text = "".join(lines) + "Assistant:"
        return tuple(self._tokenizer(text, split_special_tokens=True)["input_ids"])


def _merge_system(messages: Sequence[tuple[str, str]]) -> list[tuple[str, str]] | None:
    """The system message in front of the first user message, for templates without such a role."""
    if len(messages) < 2 or messages[0][0] != "system" or messages[1][0] != "user":
        return None
    return [("user", f"{messages[0][1]}\n\n{messages[1][1]}"), *messages[2:]]


def _refused(error: TemplateError) -> InvalidRequest:
    reason = (error.message or type(error).__name__)[:200]
    return InvalidRequest(f"The model's chat template refuses this: {reason}", param="messages")
