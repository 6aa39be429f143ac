"""A place in an answer: how many characters are before it, and a checksum of them.

It is the id of an event of a stream, so that whoever comes back goes on at the right place, and in
the same text. Knows no event.
"""

from __future__ import annotations

import re
import zlib
from dataclasses import dataclass
from typing import Final

from penstock.errors import InvalidRequest

FORM: Final = re.compile(r"(\d{1,9})(?:-([0-9a-f]{8})(t?))?")


@dataclass(frozen=True, slots=True)
class Mark:
    """`check` is None where it is not known; `thinking`: the place is inside a thought."""

    offset: int = 0
    check: int | None = 0
    thinking: bool = False

    def after(self, text: str) -> Mark:
        """The place behind `text`, which begins here."""
        check = None if self.check is None else zlib.crc32(text.encode(), self.check)
        return Mark(self.offset + len(text), check, self.thinking)

    def fits(self, text: str) -> bool:
        """Whether `text` is long enough, and has here what was before this place."""
        if len(text) < self.offset:
            return False
        return self.check is None or zlib.crc32(text[: self.offset].encode()) == self.check

    def __str__(self) -> str:
        if self.check is None:
            return str(self.offset)
        return f"{self.offset}-{self.check:08x}{'t' if self.thinking else ''}"


def parse_mark(text: str) -> Mark:
    """An event's id as a client sends it back; a plain number of characters is one, too. Raises
    `InvalidRequest`."""
    found = FORM.fullmatch(text.strip())
    if found is None:
        raise InvalidRequest("`Last-Event-ID` is not of this stream.", param="Last-Event-ID")
    offset, check, thinking = found.groups()
    return Mark(int(offset), int(check, 16) if check else None, bool(thinking))
