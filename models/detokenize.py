"""Tokens to text, one by one, up to a stop text. Knows no model.

What is given out is safe to show: never half a character, never a stop text or what may become one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

Decode = Callable[[list[int]], str]

REPLACEMENT = "\ufffd"  #: what bytes that are not a whole character decode to
LONGEST_CHARACTER = 8  #: tokens; after so many the bytes are no character at all
MOST_CONTEXT = 64
CONTEXT = 3  #: tokens decoded before the new ones: neighbors decide about spaces


class Detokenizer:
    """The text of one row. The pieces joined are what all its tokens decode to, cut at the first
    stop text."""

    def __init__(self, decode: Decode, stops: Sequence[str] = ()) -> None:
        self._decode = decode
        self._stops = tuple(stops)
        self._ids: list[int] = []  #: the last tokens: context, then those not given out yet
        self._fresh = 0  #: how many of `_ids` were not given out yet
        self._known = ""  #: text of the context
        self._held = ""  #: decoded text that may be the beginning of a stop text
        self.stopped = False  #: a stop text was found: what is pushed later is ignored

    def push(self, token: int) -> str:
        """Take one token. Returns the text that is now safe to show."""
        if self.stopped:
            return ""
        self._ids.append(token)
        self._fresh += 1
        text = self._decode(self._ids)
        if text.endswith(REPLACEMENT) and self._fresh < LONGEST_CHARACTER:
            return ""
        return self._take(text)

    def finish(self) -> str:
        """The end of the tokens. Returns what was held back."""
        if self.stopped:
            return ""
        out = self._take(self._decode(self._ids)) if self._fresh else ""
        return out + ("" if self.stopped else self._held)

    def _take(self, text: str) -> str:
        new = text[len(self._known) :]
        # Tokens without text, such as special ones, do not push those with text out of the context.
        if new or len(self._ids) > MOST_CONTEXT:
            self._ids = self._ids[-CONTEXT:]
            self._known = self._decode(self._ids)
        self._fresh = 0
        return self._release(new) if self._stops else new

    def _release(self, new: str) -> str:
        """Everything up to a stop text, or up to what may become one."""
        text = self._held + new
        found = [at for at in (text.find(stop) for stop in self._stops) if at >= 0]
        if found:
            self.stopped = True
            return text[: min(found)]
        keep = max(_overlap(text, stop) for stop in self._stops)
        self._held = text[len(text) - keep :]
        return text[: len(text) - keep]


def _overlap(text: str, stop: str) -> int:
    """Length of the longest end of `text` that begins `stop`."""
    for size in range(min(len(text), len(stop) - 1), 0, -1):
        if text.endswith(stop[:size]):
            return size
    return 0
