"""Prompts from placeholders: substitution and nothing else."""

from __future__ import annotations

import pytest

from penstock.annotation.template import Template, unescape
from penstock.errors import InvalidRequest


def test_columns_of_any_name_are_replaced() -> None:
    template = Template.parse("{a}: {my column.x:>10} {ü!r}")

    assert template.columns == ("a", "my column.x:>10", "ü!r")
    assert template.render({"a": "1", "my column.x:>10": "2", "ü!r": "3"}) == "1: 2 3"


def test_double_braces_are_braces() -> None:
    assert Template.parse('{{"k": "{a}"}}').render({"a": "v"}) == '{"k": "v"}'


def test_a_shell_s_backslashes_are_newlines_and_tabs() -> None:
    assert unescape(r"a\n{b}\t\\n\d") == "a\n{b}\t\\n\\d"


def test_values_are_never_looked_into() -> None:
    template = Template.parse("{a} {choices}", ("x", "y"))

    assert template.render({"a": "{b} {choices} {{"}) == "{b} {choices} {{ x, y"
    assert Template.parse("{a.__class__}").columns == ("a.__class__",)


def test_what_is_no_text_is_json_and_null_is_nothing() -> None:
    row = {"a": None, "b": 1.5, "c": ["ü"], "d": True}

    assert Template.parse("{a}|{b}|{c}|{d}").render(row) == '|1.5|["ü"]|true'


@pytest.mark.parametrize("text", ["{", "}", "a {", "{}", "{{{", "a } b"])
def test_a_lone_brace_is_refused_with_its_place(text: str) -> None:
    with pytest.raises(InvalidRequest, match=r"lone .* at character \d+") as caught:
        Template.parse(text)

    assert caught.value.param == "template"


def test_choices_are_asked_for_in_a_last_line_or_where_the_template_says() -> None:
    assert Template.parse("{t}", ("a", "b")).render({"t": "?"}) == "?\nAnswer with one of: a, b."
    assert Template.parse("{choices}: {t}", ("a", "b")).render({"t": "?"}) == "a, b: ?"


def test_without_choices_a_column_may_have_their_name() -> None:
    assert Template.parse("{choices}").columns == ("choices",)


def test_an_unknown_column_is_named_beside_those_there_are() -> None:
    with pytest.raises(InvalidRequest, match=r"t\.csv has no column 'c'; it has: a, b\."):
        Template.parse("{a} {c}").require(["a", "b"], "t.csv")


def test_the_line_for_choices_is_the_one_the_tiny_model_learned() -> None:
    from examples.stdlib.prompts import TOPIC_TEMPLATE, topic_text
    from examples.stdlib.topics import LABELS

    row = {"signature": "f(x)", "docstring": "Does it."}

    assert Template.parse(TOPIC_TEMPLATE, LABELS).render(row) == topic_text("f(x)", "Does it.")
