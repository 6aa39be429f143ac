"""Filters of rows: what they may say, and how cells are compared."""

from __future__ import annotations

import pytest

from penstock.annotation.task.expression import MOST_CHARS, Expression
from penstock.errors import InvalidRequest

CSV = {
    "needs_review": "false",
    "yes": "true",
    "p": "0.40",
    "n": "10",
    "m": "9",
    "label": "spam",
    "tags": '["a", "b"]',
    "none": "",
    "my text": "Free Money",
}
TYPED = {
    "needs_review": False,
    "yes": True,
    "p": 0.4,
    "n": 10,
    "m": 9,
    "label": "spam",
    "tags": ["a", "b"],
    "none": None,
    "my text": "Free Money",
}


@pytest.mark.parametrize("row", [CSV, TYPED], ids=["csv", "typed"])
@pytest.mark.parametrize(
    ("text", "held"),
    [
        ("needs_review", False),
        ("not needs_review and p < 0.5", True),
        ("needs_review == false", True),
        ("needs_review is True or yes != true", False),
        ("p == 0.4", True),
        ("0.3 <= p <= 0.4", True),
        ("n > m", True),
        ("n > m + 1", False),
        ("-n * 2 / 4 - 1 == -6 and n % 3 == 1", True),
        ("n / 0 > 1 or n % 0 > 1", False),
        ('label in ["ham", "spam"]', True),
        ('label not in ["ham"] and label != "ham" and label < "t"', True),
        ('"a" in tags and "c" not in tags and len(tags) == 2', True),
        ('contains(column("my text"), "money")', True),
        ('startswith(label, "sp") and endswith(upper(label), "M")', True),
        ("none == null and empty(none) and not none", True),
        ("none > 1 or none < 1 or none + 1 == 1 or none == 0", False),
        ('len(strip(" x ")) == 1 and lower("X") == "x"', True),
        ("abs(p - 1) < 0.61 and round(p) == 0", True),
        ("number(n) == n", True),
        ('label is "spam" and label != "\\d"', True),
    ],
)
def test_cells_are_compared_alike_from_every_format(
    row: dict[str, object], text: str, held: bool
) -> None:
    expression = Expression.parse(text)

    assert expression.holds(row) is held
    assert bool(expression.evaluate(row)) is held


def test_names_are_the_columns_in_order() -> None:
    expression = Expression.parse('p < m and column("my text") == lower(label) or p == true')

    assert expression.names == ("p", "m", "my text", "label")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("p < ) 1", "is no expression at character 5"),
        ("", "is no expression"),
        ("p.__class__", "cells have no parts"),
        ("p[0]", "cells have no parts"),
        ('__import__("os")', "there is no function __import__; there are: column, abs"),
        ("(lambda: 1)()", "no function of this kind"),
        ("[x for x in p]", "`listcomp` is not allowed"),
        ('f"{p}"', "`joinedstr` is not allowed"),
        ("10 ** 10 ** 10", "`pow` is not allowed"),
        ("1 << 10000000", "`lshift` is not allowed"),
        ("(p := 1)", "`namedexpr` is not allowed"),
        ("1j < p", "1j is not allowed"),
        ("len(p, n)", "len takes 1 value, not 2"),
        ("round(p, digits=1)", "round takes plain values"),
        ("len(*p)", "len takes plain values"),
        ("column(p)", "column takes a name in quotes"),
        ("not " * 200 + "p", "nested too deeply"),
        ("-" * 900 + "1", "nested too deeply|too many nested"),
        ("(" * 400 + "1" + ")" * 400, "too many nested|nested too deeply"),
        ("p or " * (MOST_CHARS // 5) + "p", "longer than 1,000 characters"),
    ],
)
def test_what_is_wrong_or_not_allowed_is_one_sentence(text: str, reason: str) -> None:
    with pytest.raises(InvalidRequest, match=reason) as caught:
        Expression.parse(text)

    assert caught.value.param == "where"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("gone > 1", "There is no column 'gone'"),
        ("label > 1", "'spam' is no number"),
        ('"a" * 1000000000', "'a' is no number"),
        ("[1] * 1000000000", "is no number"),
        ("*".join(["1" + "0" * 400] * 2) + " / 3", "too large"),
    ],
)
def test_a_row_that_does_not_fit_is_one_sentence(text: str, reason: str) -> None:
    expression = Expression.parse(text)

    with pytest.raises(InvalidRequest, match=reason) as caught:
        expression.evaluate(TYPED)

    assert caught.value.param == "where"
