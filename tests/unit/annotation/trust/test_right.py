"""When an answer counts as the gold one."""

from __future__ import annotations

import pytest

from penstock.annotation.records import Kind
from penstock.annotation.trust.right import missing, right


@pytest.mark.parametrize(
    ("value", "gold", "kind", "expected"),
    [
        ("spam", " spam ", Kind.LABELS, True),
        ("spam", "ham", Kind.LABELS, False),
        ("1", 1, Kind.LABELS, True),
        (None, "", Kind.LABELS, False),
        (["b", "a"], '["a", "b"]', Kind.LABELS, True),
        (["b", "a"], "a, b", Kind.LABELS, True),
        (["a"], ["a", "b"], Kind.LABELS, False),
        ([], "[]", Kind.LABELS, True),
        ([], "", Kind.LABELS, True),
        ({"year": 1990, "name": "x"}, '{"year": 1990.0}', Kind.FIELDS, True),
        ({"year": 1, "name": "x"}, {"year": True}, Kind.FIELDS, False),
        ({"year": 1990}, {"year": 1990, "name": "x"}, Kind.FIELDS, False),
        ({"year": 1990}, "not JSON", Kind.FIELDS, False),
        ("a text\n", "a text", Kind.TEXT, True),
    ],
)
def test_what_is_right(value: object, gold: object, kind: Kind, expected: bool) -> None:
    assert right(value, gold, kind) is expected


def test_an_empty_cell_is_no_gold() -> None:
    assert all(map(missing, (None, "", "  ", float("nan"))))
    assert not any(map(missing, ("a", 0, False, [])))
