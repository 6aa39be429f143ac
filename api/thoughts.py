"""Tells what a model thinks (`<think>…</think>`) from what it says, piece by piece.

Knows no event and no stream; the tags themselves are neither said nor thought.
"""

from __future__ import annotations

from collections.abc import Iterator

from api.marks import Mark

OPEN, CLOSE = "<think>", "</think>"


class Thoughts:
    """`mark` is how far text was given out: the end of what may be the beginning of a tag is held
    back until more of it comes."""

    def __init__(self, mark: Mark) -> None:
        self.mark = mark
        self._held = ""

    def take(self, text: str) -> Iterator[tuple[str, bool]]:
        """Parts that are certain, each with whether it is thought; `mark` stands behind each as it
        is given."""
        self._held += text
        while self._held:
            tag = CLOSE if self.mark.thinking else OPEN
            at = self._held.find(tag)
            if at < 0:
                yield from self._give(len(self._held) - _overlap(self._held, tag))
                return
            yield from self._give(at)
            after = self.mark.after(self._held[: len(tag)])
            self.mark = Mark(after.offset, after.check, not after.thinking)
            self._held = self._held[len(tag) :]

    def finish(self) -> Iterator[tuple[str, bool]]:
        """The end of the answer: what was held back was no tag."""
        yield from self._give(len(self._held))

    def _give(self, count: int) -> Iterator[tuple[str, bool]]:
        if count:
            text, self._held = self._held[:count], self._held[count:]
            self.mark = self.mark.after(text)
            yield text, self.mark.thinking


def _overlap(text: str, tag: str) -> int:
    """Length of the longest end of `text` that begins `tag`."""
    sizes = range(min(len(text), len(tag) - 1), 0, -1)
    return next((size for size in sizes if text.endswith(tag[:size])), 0)
