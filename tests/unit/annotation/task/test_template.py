"""Templates of strangers: columns by name, and no more work than a prompt is worth."""

from __future__ import annotations

import datetime

import pytest

from penstock.annotation.task.template import MOST_CHARS, Template
from penstock.errors import InvalidRequest


def test_columns_are_those_it_names_in_their_order() -> None:
    loop = "{% for w in b.split() %}{{ w }}{% endfor %}"
    template = Template.parse('{{ b }}{% if a %}{{ row["my text"] }}{% endif %}' + loop)

    assert template.columns == ("b", "a", "my text")
    assert template.render({"a": "1", "b": "x y", "my text": "z"}) == "x yzxy"


def test_names_that_are_told_are_no_columns() -> None:
    template = Template.parse('{{ text }}: {{ labels|join(", ") }}', ("labels", "label"))

    assert (template.columns, template.given) == (("text",), frozenset({"labels"}))
    assert template.render({"text": "t"}, {"labels": ["a", "b"]}) == "t: a, b"
    assert Template.parse("{{ labels }}").columns == ("labels",)


def test_cells_are_text_null_is_nothing_and_the_rest_is_json() -> None:
    row = {"a": None, "b": 1.5, "c": ["ü", {"k": None}], "d": True, "e": datetime.date(2020, 1, 2)}

    shown = Template.parse("{{ a }}|{{ b }}|{{ c }}|{{ d }}|{{ e }}").render(row)

    assert shown == '|1.5|["ü", {"k": null}]|true|2020-01-02'


def test_cells_are_never_templates_themselves() -> None:
    assert Template.parse("{{ a }}").render({"a": "{{ b }}{% for %}"}) == "{{ b }}{% for %}"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("{{ t|truncate(4) }}", "One…"),
        ('{{ t|replace("One", "No")|upper }}', "NO TWO"),
        ("{{ t.split()|length }} {{ t|length }} {{ t|wordcount }}", "2 7 2"),
        ('{{ t.split()|sort|join("-") }} {{ n|sort }}', "One-two [3, 20]"),
        ('{{ none|default("x", true) }}{{ gone|default("y") }}', "xy"),
        ("{{ t ~ (1 + 2) }} {{ 7 // 2 }} {{ t[:3] }}", "One two3 3 One"),
        ("{% set x = t.lower() %}{{ x if x is string else 0 }}", "one two"),
        ("{% for k, v in o.items() %}{{ loop.index }}{{ k }}={{ v }};{% endfor %}", "1a=1;2b=;"),
        ('{{ "two" in t and t != "" and not 3 in n }}', "false"),
        ("{{ n|first }}{{ n|last }}{{ n|reverse }}{{ n|unique|count }}", "203[3, 20]2"),
        ('{{ "2.6"|float|round }}{{ "7"|int }} {{ o|tojson }}', '3.07 {"a": 1, "b": null}'),
    ],
)
def test_what_a_prompt_needs_of_jinja_is_there(text: str, shown: str) -> None:
    row = {"t": "One two", "none": None, "n": [20, 3], "o": {"a": 1, "b": None}}

    assert Template.parse(text).render(row) == shown


DOUBLED = "{% set x = t %}" + "{% set x = x ~ x %}" * 60 + "{{ x }}"
LOOPS = "{% for a in range(90000) %}" * 3 + "x" + "{% endfor %}" * 3


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('{{ "a" * 1000000000 }}', "`*` is for numbers"),
        ('{{ "a" * 10**9 }}', r"`\*\*` is not allowed"),
        (LOOPS, "too much work"),
        ("{% for a in t * 3 %}{% endfor %}", "is for numbers"),
        ("{{ range(1000000000)|list }}", "Range too big"),
        (DOUBLED, "too much work"),
        (DOUBLED.replace("~", "+"), "too much work"),
        ('{% set x = t %}{% set x = x|replace("", x) %}' + '{% set x = x|replace("", x) %}' * 20,
         "too much work"),
        ("{{ range(90000)|join(range(90000)|join) }}", "too much work"),
        ("{% for a in range(90000) %}{{ t == t }}{% endfor %}" * 9, "too much work"),
        ("{% set x = 9 %}" + "{% set x = x * x %}" * 60 + "{{ x }}", "too large"),
        ("{% set x = [t, t] %}", "may have texts and numbers only"),
        ("{{ " + "9" * 5000 + " }}", "Exceeds the limit"),
        ("{{ " + "(" * 3000 + "1" + ")" * 3000 + " }}", "nested too deeply"),
        ("{% if t %}" * 500 + "{% endif %}" * 500, "nested too deeply"),
        ("{{ t.__class__.__mro__ }}", "begins with an underscore"),
        ('{{ t["__class__"] }}', "unsafe"),
        ('{{ "%1000000000d" % 1 }}', "`%` is for numbers"),
        ('{{ "{:1000000000}".format(1) }}', "no method 'format'"),
        ("{{ t.ljust(1000000000) }}", "no method 'ljust'"),
        ('{{ t["ljust"](1000000000) }}', "only `range` and methods"),
        ("{% set f = t.ljust %}{{ f(1000000000) }}", "only `range` and methods"),
        ("{{ t|center(1000000000) }}", "No filter named 'center'"),
        ('{{ t|attr("upper") }}', "No filter named 'attr'"),
        ("{{ t.upper }}{{ range }}", "nothing that a prompt could have"),
        ('{% include "/etc/passwd" %}', "`include` is not allowed"),
        ("{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}", "`macro` is not allowed"),
        ("{% for a in t recursive %}{{ loop(t) }}{% endfor %}", "recursive loop"),
        ("{% set x %}{{ t }}{{ t }}{% endset %}", "a `set` block is not allowed"),
        ("{{ cycler }}{{ lipsum }}", "'cycler' is undefined"),
        ("x" * (MOST_CHARS + 1), "longer than 65,536 characters"),
        ("{{ t", "line 1: unexpected end"),
        ("a\n{% if %}", "line 2: Expected an expression"),
        ("{{ 1[2:] }}", "not subscriptable|no element"),
        ("{{ 1[2] and 3 }}", "makes no sense: int object has no element 2"),
        ("{{ row }}", "uses `row` as a whole"),
        ("{{ gone }}", "'gone' is undefined"),
        ("{{ t / 0 }}{{ 1 / 0 }}", "is for numbers"),
        ("{{ 1 / 0 }}", "division by zero"),
        (" \n", "is empty"),
    ],
)  # fmt: skip
def test_what_is_wrong_or_would_take_too_much_is_one_sentence(text: str, reason: str) -> None:
    with pytest.raises(InvalidRequest, match=reason) as caught:
        Template.parse(text).render({"t": "One two"})

    assert caught.value.param == "template"
    assert len(caught.value.message) < 300


def test_a_huge_cell_is_refused_when_it_makes_a_huge_prompt() -> None:
    with pytest.raises(InvalidRequest, match="more than 4,000,000 characters"):
        Template.parse("{{ t }}{{ t }}").render({"t": "x" * 3_000_000})
