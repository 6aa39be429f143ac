"""Chats to tokens, by the model's own template or a plain one. Knows no generation."""

from __future__ import annotations

import contextlib
import copy
import threading
from collections.abc import Sequence
from functools import partial
from typing import Any

from jinja2.exceptions import TemplateError
from transformers import PreTrainedTokenizerBase

from models.templates import TemplateLimit, Watch, longest_output, vet, watch
from penstock.errors import InvalidRequest, UnsafeModel

ROLES = {"system": "System", "user": "User", "assistant": "Assistant"}
PLAIN_OPENING = "Assistant:"
#: What every template is tried with before the first chat comes.
TRIALS = (
    (("user", "?"),),
    (("system", "Be brief."), ("user", "?")),
    (("user", "?"), ("assistant", "!"), ("user", "?")),
)


class TokenizerCodec:
    """Text of users never becomes a control token, whatever it spells.

    Safe to call from several threads: a fast tokenizer keeps state between calls, so this has a
    copy of its own, behind a lock.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, watch: Watch = watch) -> None:
        self._tokenizer: Any = copy.deepcopy(tokenizer)
        self._watch = watch
        self._lock = threading.Lock()
        self.has_template = bool(self._tokenizer.chat_template)
        self._opening: str | None = None  # of the answer; found when first needed

    def check_template(self) -> None:
        """Raises UnsafeModel for a template that is too much for any chat."""
        if not self.has_template:
            return
        try:
            vet(self._tokenizer.get_chat_template())
            for trial in TRIALS:
                # Not every template takes every chat; what it says then is for whoever sends one.
                with contextlib.suppress(TemplateError, LookupError, TypeError, ValueError):
                    self._encode_template(trial)
        except TemplateLimit as error:
            raise UnsafeModel(f"The model's chat template {error}.") from error

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
            except TemplateLimit as error:
                raise _too_much(error) from error
            try:
                return self._encode_template(merged)
            except TemplateError as error:
                raise _refused(error) from error
            except TemplateLimit as error:
                raise _too_much(error) from error

    def encode_text(self, text: str) -> tuple[int, ...]:
        """A text that is no chat, as the tokenizer begins texts. Raises InvalidRequest for one
        without tokens."""
        with self._lock:
            tokens = tuple(self._tokenizer(text, split_special_tokens=True)["input_ids"])
        if not tokens:
            raise InvalidRequest("This model has no tokens for this text.", param="prompt")
        return tokens

    def encode_answer(self, text: str) -> tuple[int, ...]:
        """Token ids that, after those of a chat, spell the chat with its answer. Raises
        InvalidRequest for a text without any."""
        with self._lock:
            if self._opening is None:
                self._opening = self._last_opening() if self.has_template else PLAIN_OPENING
            # After a plain opening a space is what texts go on with, where they have none.
            text = text if self.has_template or not text or text[0].isspace() else f" {text}"
            whole, opening = self._ids(self._opening + text), self._ids(self._opening)
            joined = whole[: len(opening)] != opening
            tokens = self._ids(text) if joined else whole[len(opening) :]
        if not tokens:
            raise InvalidRequest("This model has no tokens for an empty text.", param="choices")
        return tokens

    def _ids(self, text: str) -> tuple[int, ...]:
        encoded = self._tokenizer(text, add_special_tokens=False, split_special_tokens=True)
        return tuple(encoded["input_ids"])

    def _last_opening(self) -> str:
        """What stands between the last control token and the answer: tokenizers look at it."""
        try:
            chat = self._render([{"role": "user", "content": "?"}])
        except (TemplateError, TemplateLimit):
            return ""
        added = self._tokenizer.added_tokens_decoder.values()
        control = [token.content for token in added if token.special]
        ends = [chat.rfind(token) + len(token) for token in control if token in chat]
        opening: str = chat[max(ends, default=0) :]
        return opening

    def _encode_template(self, messages: Sequence[tuple[str, str]]) -> tuple[int, ...]:
        chat = [{"role": role, "content": content} for role, content in messages]
        # The steps of `apply_chat_template`, with a look at what was rendered in between.
        tokenizer = self._tokenizer
        template = tokenizer.get_chat_template()
        marked = tokenizer._mark_chat_inputs(template, [chat], None, None, {}, True, False)[0]
        text = self._render(marked[0])
        if len(text) > longest_output(sum(len(content) for _, content in messages)):
            raise TemplateLimit(f"makes {len(text):,} characters of this chat")
        encoded = tokenizer(text, add_special_tokens=False, sanitize_control_tokens=True)
        return tuple(encoded["input_ids"])

    def _render(self, chat: list[dict[str, str]]) -> str:
        """By transformers, in jinja2's sandbox, and not for ever."""
        render = partial(
            self._tokenizer.apply_chat_template, chat, add_generation_prompt=True, tokenize=False
        )
        return self._watch.limit(render)

    def _encode_plain(self, messages: Sequence[tuple[str, str]]) -> tuple[int, ...]:
        lines = [f"{ROLES.get(role, role.capitalize())}: {content}\n" for role, content in messages]
        text = "".join(lines) + PLAIN_OPENING
        return tuple(self._tokenizer(text, split_special_tokens=True)["input_ids"])


def _merge_system(messages: Sequence[tuple[str, str]]) -> list[tuple[str, str]] | None:
    """The system message in front of the first user message, for templates without such a role."""
    if len(messages) < 2 or messages[0][0] != "system" or messages[1][0] != "user":
        return None
    return [("user", f"{messages[0][1]}\n\n{messages[1][1]}"), *messages[2:]]


def _too_much(error: TemplateLimit) -> InvalidRequest:
    return InvalidRequest(f"The model's chat template {error}.", param="messages")


def _refused(error: TemplateError) -> InvalidRequest:
    reason = (error.message or type(error).__name__)[:200]
    return InvalidRequest(f"The model's chat template refuses this: {reason}", param="messages")
