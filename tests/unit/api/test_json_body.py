"""The reader of bodies against the standard library's."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.errors import MalformedBody
from api.json_body import parse_object
from penstock.errors import InvalidRequest

values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)
objects = st.dictionaries(st.sampled_from(["messages", "a", "é"]) | st.text(), values)


@given(objects, st.sampled_from([None, 1]), st.booleans())
def test_it_reads_what_the_standard_library_reads(
    value: dict[str, object], indent: int | None, ascii_only: bool
) -> None:
    text = json.dumps(value, indent=indent, ensure_ascii=ascii_only)
    body = bytearray(f" {text}\r\n".encode("utf-8", "surrogatepass"))

    assert parse_object(body, long_list="messages", most=1_000) == value
    assert not body


@given(st.text(alphabet='{}[]",:0 \\ueE+-.ntrfals', max_size=30))
def test_it_refuses_what_the_standard_library_refuses(text: str) -> None:
    try:
        expected = json.loads(text)
    except ValueError:
        expected = None
    body = bytearray(text.encode())
    if isinstance(expected, dict):
        assert parse_object(body, long_list="e", most=30) == expected
    else:
        with pytest.raises(MalformedBody):
            parse_object(body, long_list="e", most=30)


def test_only_the_list_that_was_named_is_limited() -> None:
    body = b'{"short": [1, 2], "messages": [1, 2]}'

    assert parse_object(bytearray(body), long_list="messages", most=2)["short"] == [1, 2]
    with pytest.raises(InvalidRequest, match="more than 1 elements") as raised:
        parse_object(bytearray(body), long_list="messages", most=1)
    assert raised.value.param == "messages"


def test_the_place_of_a_mistake_is_named_without_what_is_there() -> None:
    with pytest.raises(MalformedBody) as raised:
        parse_object(bytearray(b'{"secret": tru}'))

    assert "character 11" in raised.value.message
    assert "secret" not in raised.value.message
