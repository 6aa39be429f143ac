"""What is thought and what is said, and where a reader goes on."""

from __future__ import annotations

import zlib
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.marks import Mark, parse_mark
from api.thoughts import Thoughts
from penstock.errors import InvalidRequest

ANSWER = "so <think>a < b, </thin or ü</think>yes <think>more</think><thing> <think"
PARTS = [("so ", False), ("a < b, </thin or ü", True), ("yes ", False), ("more", True)]
PARTS.append(("<thing> <think", False))


def _read(pieces: list[str], mark: Mark) -> tuple[list[tuple[str, bool]], list[Mark]]:
    thoughts = Thoughts(mark)
    found, marks = [], []
    for piece in pieces:
        for part in thoughts.take(piece):
            found.append(part)
            marks.append(thoughts.mark)
    for part in thoughts.finish():
        found.append(part)
        marks.append(thoughts.mark)
    return found, marks


def _joined(parts: list[tuple[str, bool]]) -> list[tuple[str, bool]]:
    joined: list[tuple[str, bool]] = []
    for text, thinking in parts:
        before = joined.pop()[0] if joined and joined[-1][1] == thinking else ""
        joined.append((before + text, thinking))
    return joined


@given(st.lists(st.integers(0, len(ANSWER)), max_size=12))
def test_thoughts_are_told_from_text_however_it_is_cut_and_from_every_mark(cuts: list[int]) -> None:
    at = [0, *sorted(cuts), len(ANSWER)]
    pieces = [ANSWER[start:end] for start, end in pairwise(at)]

    parts, marks = _read(pieces, Mark())

    assert _joined(parts) == PARTS
    for number, mark in enumerate(marks):
        assert mark.fits(ANSWER)
        back = parse_mark(str(mark))
        rest, _ = _read([ANSWER[back.offset :]], back)
        assert _joined(parts[: number + 1] + rest) == PARTS


def test_a_mark_knows_another_text_and_one_that_is_too_short() -> None:
    mark = Mark().after("one tëxt")

    assert mark == Mark(8, zlib.crc32("one tëxt".encode()))
    assert mark.fits("one tëxt and more")
    assert not mark.fits("one text and more")
    assert not mark.fits("one")
    assert parse_mark("3").fits("any")


@pytest.mark.parametrize("text", ["", "x", "-1", "1-", "1-xyz", "9" * 20, "1-0123456g", "1 2"])
def test_an_id_of_another_stream_is_refused_by_name(text: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        parse_mark(text)

    assert caught.value.param == "Last-Event-ID"
