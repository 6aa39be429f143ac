"""JSON objects from untrusted bytes, with one long list read element by element.

So a list that is too long is refused at its first element too many, and other threads run between
elements, where one `json.loads` of 200 MB would hold the interpreter for seconds.
"""

from __future__ import annotations

import json
import re
from typing import Final, NoReturn

from api.errors import MalformedBody
from penstock.errors import InvalidRequest, TooLarge

#: Every comma, bracket and brace may become an object of some 60 bytes in memory.
MAX_MARKS: Final = 20_000_000
BYTES_OF_A_MARK: Final = 60
#: One element holds the interpreter until it is read, and only nesting makes that long.
MAX_OPENINGS: Final = 2_000_000
#: Bytes that one of text may take: a control character is written \u0000.
JSON_FACTOR: Final = 6
SPACE: Final = re.compile(r"[ \t\n\r]*")


def _refuse_constant(name: str) -> NoReturn:
    raise json.JSONDecodeError(f"{name} is not JSON", "", 0)


DECODER: Final = json.JSONDecoder(parse_constant=_refuse_constant)


class _Reader:
    """A cursor over the text of one object."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0

    def peek(self) -> str:
        """The next character that is not white space; empty at the end."""
        match = SPACE.match(self._text, self._at)
        self._at = match.end() if match else self._at
        return self._text[self._at : self._at + 1]

    def accept(self, mark: str) -> bool:
        if self.peek() != mark:
            return False
        self._at += 1
        return True

    def expect(self, mark: str) -> None:
        if not self.accept(mark):
            raise json.JSONDecodeError(f"Expecting {mark!r}", self._text, self._at)

    def value(self) -> object:
        self.peek()
        found, self._at = DECODER.raw_decode(self._text, self._at)
        return found

    def key(self) -> str:
        if self.peek() != '"':
            raise json.JSONDecodeError("Expecting a name in quotes", self._text, self._at)
        return str(self.value())

    def elements(self, name: str, most: int) -> list[object]:
        """A list of at most `most` elements; the cursor is on its bracket."""
        self.expect("[")
        found: list[object] = []
        if self.accept("]"):
            return found
        while True:
            if len(found) == most:
                raise InvalidRequest(f"`{name}` has more than {most} elements.", param=name)
            found.append(self.value())
            if not self.accept(","):
                break
        self.expect("]")
        return found


def memory_of(body: bytes | bytearray) -> int:
    """About the most bytes that the values in `body` may take once it is read. Raises `TooLarge`
    where they are more than are read at once."""
    openings = body.count(b"[") + body.count(b"{")
    marks = openings + body.count(b",")
    if openings > MAX_OPENINGS or marks > MAX_MARKS:
        raise TooLarge("The body has more JSON values than are read at once.")
    return marks * BYTES_OF_A_MARK


def parse_object(
    body: bytearray, *, long_list: str | None = None, most: int = 0
) -> dict[str, object]:
    """The members of the one JSON object in `body`, which is emptied; lone surrogates survive.

    Raises `MalformedBody`, `TooLarge`, and `InvalidRequest` where `long_list` has more than `most`
    elements.
    """
    memory_of(body)
    try:
        text = body.decode("utf-8", "surrogatepass")
        body.clear()
        return _members(_Reader(text), long_list, most)
    except UnicodeDecodeError:
        raise MalformedBody("The body is not valid UTF-8.") from None
    except json.JSONDecodeError as error:
        what = error.msg.removesuffix(" at")
        raise MalformedBody(
            f"The body is not valid JSON: {what} at character {error.pos}."
        ) from None
    except RecursionError:
        raise MalformedBody("The body is nested too deeply.") from None
    except ValueError:  # an integer of more digits than Python reads
        raise MalformedBody("The body has a number that is too long.") from None


def _members(reader: _Reader, long_list: str | None, most: int) -> dict[str, object]:
    if reader.peek() != "{":
        raise MalformedBody("The body has to be one JSON object.")
    reader.expect("{")
    members: dict[str, object] = {}
    more = reader.peek() != "}"
    while more:
        name = reader.key()
        reader.expect(":")
        if name == long_list and reader.peek() == "[":
            members[name] = reader.elements(name, most)
        else:
            members[name] = reader.value()
        more = reader.accept(",")
    reader.expect("}")
    if reader.peek():
        raise MalformedBody("The body goes on after its JSON object.")
    return members
