"""Keys: what their text tells, and to whom."""

from __future__ import annotations

import pytest

from penstock.keys import KeySigner

OURS = KeySigner("one secret, of thirty-two characters")
OTHERS = KeySigner("another secret, as long as the first")


def test_a_key_is_recognized_by_its_maker_alone() -> None:
    made = OURS.make()

    assert OURS.id_of(made.text) == made.id
    assert OURS.digest(made.text) == made.digest
    assert OTHERS.id_of(made.text) is None
    assert OTHERS.digest(made.text) != made.digest
    assert OURS.make().text != made.text


@pytest.mark.parametrize("place", [0, 4, 19, 20, 21, 60, 69, 84])
def test_a_key_with_another_character_is_nobodys(place: int) -> None:
    text = OURS.make().text
    other = "0" if text[place] != "0" else "1"

    assert OURS.id_of(text[:place] + other + text[place + 1 :]) is None


def test_what_is_no_key_is_nobodys() -> None:
    text = OURS.make().text

    for wrong in ("", "psk_", text[:-1], text + "0", text.upper(), f" {text}", "é" * 85, "\ud800"):
        assert OURS.id_of(wrong) is None
    assert OURS.id_of(OURS.own()) is None


def test_the_own_key_follows_from_the_secret() -> None:
    assert OURS.own() == KeySigner("one secret, of thirty-two characters").own()
    assert OURS.own() != OTHERS.own()
