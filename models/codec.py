"""Chats to tokens, by the model's own template or a plain one. Knows no generation."""

from __future__ import annotations

import contextlib
import copy
import threading
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

from jinja2.exceptions import TemplateError
from transformers import PreTrainedTokenizerBase

from models.templates import TemplateLimit, Watch, longest_output, vet, watch
from penstock.errors import InvalidRequest, UnsafeModel

ROLES = {"system": "System", "user": "User", "assistant": "Assistant"}
PLAIN_OPENING = "Assistant:"
PORTION = 32_000  #: characters that are encoded at once, before others get their turn
#: What every template is tried with before the first chat comes.
TRIALS = (
    (("user", "?"),),
    (("system", "Be brief."), ("user", "?")),
    (("user", "?"), ("assistant", "!"), ("user", "?")),
)

#: Turns of (role, content).
Chat = Sequence[tuple[str, str]]


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
                    self._encode_template([trial])
        except TemplateLimit as error:
            raise UnsafeModel(f"The model's chat template {error}.") from error

    def encode_chat(self, messages: Chat) -> tuple[int, ...]:
        """Raises InvalidRequest when the model's template does not take these messages."""
        (encoded,) = self.encode_chats([messages])
        if isinstance(encoded, InvalidRequest):
            raise encoded
        return encoded

    def encode_chats(self, chats: Sequence[Chat]) -> list[tuple[int, ...] | InvalidRequest]:
        """Each one's tokens, or why it has none. Many cost less together than one by one; others
        who want to encode are let in between."""
        encoded: list[tuple[int, ...] | InvalidRequest] = []
        for portion in _portions(chats):
            with self._lock:
                encoded += (
                    self._encode_templates(portion)
                    if self.has_template
                    else self._ids_of(list(map(_plain, portion)), split_special_tokens=True)
                )
        return encoded

    def encode_text(self, text: str) -> tuple[int, ...]:
        """A text that is no chat, as the tokenizer begins texts. Raises InvalidRequest for one
        without tokens."""
        with self._lock:
            (tokens,) = self._ids_of([text], split_special_tokens=True)
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
        (ids,) = self._ids_of([text], add_special_tokens=False, split_special_tokens=True)
        return ids

    def _last_opening(self) -> str:
        """What stands between the last control token and the answer: tokenizers look at it."""
        try:
            (chat,) = self._render([[{"role": "user", "content": "?"}]])
        except (TemplateError, TemplateLimit):
            return ""
        added = self._tokenizer.added_tokens_decoder.values()
        control = [token.content for token in added if token.special]
        ends = [chat.rfind(token) + len(token) for token in control if token in chat]
        opening: str = chat[max(ends, default=0) :]
        return opening

    def _encode_templates(self, chats: Sequence[Chat]) -> list[tuple[int, ...] | InvalidRequest]:
        if len(chats) > 1:
            with contextlib.suppress(Exception):  # whose fault it was shows when each is tried
                return list(self._encode_template(chats))
        return [self._encode_alone(chat) for chat in chats]

    def _encode_alone(self, chat: Chat) -> tuple[int, ...] | InvalidRequest:
        try:
            try:
                (tokens,) = self._encode_template([chat])
            except TemplateError:
                merged = _merge_system(chat)
                if merged is None:
                    raise
                (tokens,) = self._encode_template([merged])
        except TemplateLimit as error:
            return _too_much(error)
        except Exception as error:  # a template is a program, and may fail in any way
            return _refused(error)
        return tokens

    def _encode_template(self, chats: Sequence[Chat]) -> list[tuple[int, ...]]:
        # The steps of `apply_chat_template`, with a look at what was rendered in between.
        tokenizer = self._tokenizer
        asked = [[{"role": role, "content": content} for role, content in chat] for chat in chats]
        template = tokenizer.get_chat_template()
        marked = tokenizer._mark_chat_inputs(template, asked, None, None, {}, True, False)[0]
        texts = self._render(marked)
        for chat, text in zip(chats, texts, strict=True):
            if len(text) > longest_output(sum(len(content) for _, content in chat)):
                raise TemplateLimit(f"makes {len(text):,} characters of this chat")
        if marked == asked:  # nobody wrote what looks like a control token
            return self._ids_of_clean(texts)
        return self._ids_of(texts, add_special_tokens=False, sanitize_control_tokens=True)

    def _render(self, chats: list[list[dict[str, str]]]) -> list[str]:
        """By transformers, in jinja2's sandbox, and not for ever."""
        render = partial(
            self._tokenizer.apply_chat_template, chats, add_generation_prompt=True, tokenize=False
        )
        return self._watch.limit(render)

    def _ids_of_clean(self, texts: list[str]) -> list[tuple[int, ...]]:
        """Of rendered chats, in half the time: where in the text a token was is not asked for."""
        backend = getattr(self._tokenizer, "backend_tokenizer", None)
        if backend is None:
            return self._ids_of(texts, add_special_tokens=False)
        # The file of a tokenizer may ask for both, and other calls change the last.
        backend.no_truncation()
        backend.no_padding()
        backend.encode_special_tokens = self._tokenizer.split_special_tokens
        encoded = backend.encode_batch_fast(texts, add_special_tokens=False)
        return [tuple(one.ids) for one in encoded]

    def _ids_of(self, texts: list[str], **options: bool) -> list[tuple[int, ...]]:
        encoded = self._tokenizer(
            texts, return_attention_mask=False, return_token_type_ids=False, **options
        )
        return list(map(tuple, encoded["input_ids"]))


def _plain(chat: Chat) -> str:
    lines = [f"{ROLES.get(role, role.capitalize())}: {content}\n" for role, content in chat]
    return "".join(lines) + PLAIN_OPENING


def _portions(chats: Sequence[Chat]) -> Iterator[list[Chat]]:
    """In order, each of about as many characters as are encoded in a few milliseconds."""
    portion: list[Chat] = []
    size = 0
    for chat in chats:
        portion.append(chat)
        size += sum(len(content) for _, content in chat)
        if size >= PORTION:
            yield portion
            portion, size = [], 0
    if portion:
        yield portion


def _merge_system(chat: Chat) -> Chat | None:
    """The system message in front of the first user message, for templates without such a role."""
    if len(chat) < 2 or chat[0][0] != "system" or chat[1][0] != "user":
        return None
    return [("user", f"{chat[0][1]}\n\n{chat[1][1]}"), *chat[2:]]


def _too_much(error: TemplateLimit) -> InvalidRequest:
    return InvalidRequest(f"The model's chat template {error}.", param="messages")


def _refused(error: Exception) -> InvalidRequest:
    told = error.message if isinstance(error, TemplateError) else None
    reason = (told or type(error).__name__)[:200]
    return InvalidRequest(f"The model's chat template refuses this: {reason}", param="messages")
