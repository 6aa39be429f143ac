"""Text that PostgreSQL refuses is known beforehand, and mended where it may be."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from storage.text import is_storable, storable

anything = st.text(st.characters(codec=None, exclude_categories=()))


@pytest.mark.parametrize(
    ("text", "mended"),
    [
        ("a\0b", "a\ufffdb"),
        ("\ud83d", "\ufffd"),
        ("\ude00", "\ufffd"),
        ("\ud83d\ude00", "\U0001f600"),
        ("\ud83dx\0\ude00", "\ufffdx\ufffd\ufffd"),
    ],
)
def test_what_cannot_be_stored_is_replaced(text: str, mended: str) -> None:
    assert not is_storable(text)
    assert storable(text) == mended


@given(anything)
def test_mended_text_is_storable_and_good_text_is_left_alone(text: str) -> None:
    mended = storable(text)

    assert mended is not None and is_storable(mended)
    assert not is_storable(text) or mended == text


def test_no_text_stays_none() -> None:
    assert storable(None) is None
