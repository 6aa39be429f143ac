"""Pieces of text are safe to show and add up to the whole, whatever the tokens are."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from models.detokenize import Detokenizer


def decode(ids: list[int]) -> str:
    """A tokenizer of bytes; token 256 is a special one without text."""
    return bytes(token for token in ids if token < 256).decode("utf-8", "replace")


def pieces(tokens: list[int], stops: tuple[str, ...] = ()) -> tuple[list[str], bool]:
    detokenizer = Detokenizer(decode, stops)
    out = [detokenizer.push(token) for token in tokens]
    return [*out, detokenizer.finish()], detokenizer.stopped


@given(st.text(max_size=40), st.sets(st.integers(0, 60), max_size=3))
def test_pieces_add_up_and_hold_no_half_character(text: str, specials: set[int]) -> None:
    tokens = list(text.encode("utf-8"))
    for place in sorted(specials):
        tokens.insert(min(place, len(tokens)), 256)
    out, _ = pieces(tokens)
    assert "".join(out) == text
    assert all("\ufffd" not in piece for piece in out) or "\ufffd" in text


@given(
    st.text(alphabet="abé€", max_size=30),
    st.lists(st.text(alphabet="abé€", min_size=1, max_size=4), min_size=1, max_size=3),
)
def test_text_ends_before_the_first_stop_and_never_shows_a_part_of_it(
    text: str, stops: list[str]
) -> None:
    out, stopped = pieces(list(text.encode("utf-8")), tuple(stops))
    # The first stop text to be complete is the one that ends the row.
    ends = [text.find(stop) + len(stop) for stop in stops if stop in text]
    assert stopped == bool(ends)
    if not ends:
        assert "".join(out) == text
        return
    seen = text[: min(ends)]
    assert "".join(out) == seen[: min(seen.find(stop) for stop in stops if stop in seen)]


def test_what_may_become_a_stop_text_is_held_back_and_then_given_out() -> None:
    detokenizer = Detokenizer(decode, ("END",))
    assert [detokenizer.push(byte) for byte in b"xENEN"] == ["x", "", "", "EN", ""]
    assert detokenizer.finish() == "EN"


def test_bytes_that_are_no_character_do_not_hold_the_rest_back_for_ever() -> None:
    out, _ = pieces([0xFF] * 20 + list(b"ok"))
    assert out[7] != ""
    assert "".join(out).endswith("ok")


def test_an_unfinished_character_at_the_end_is_marked() -> None:
    out, _ = pieces(list("a€".encode())[:-1])
    assert "".join(out) == "a\ufffd"
