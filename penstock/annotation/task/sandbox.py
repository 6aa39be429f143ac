"""Jinja for templates of strangers: which of the language they may use, and how much of it.

A template is data of a task file. It reads cells and writes text, in bounded memory and time:
what it is parsed into is made of known nodes only, and loops, filters, sums and comparisons take
from one budget (`filters.Work`). Knows no table.
"""

from __future__ import annotations

from collections import deque
from functools import cache
from typing import Final

from jinja2 import StrictUndefined, nodes
from jinja2.runtime import Context
from jinja2.sandbox import ImmutableSandboxedEnvironment, safe_range
from jinja2.visitor import NodeTransformer

from penstock.annotation.task.filters import STEPS, WEIGHED, WORK, all_filters, cell_text, size
from penstock.errors import InvalidRequest

MOST_NODES = 2_000
MOST_BITS = 256  #: of an integer
#: Methods of texts and objects, none of which makes a text much longer.
METHODS: Final = frozenset((
    "capitalize", "count", "endswith", "find", "get", "isalpha", "isdigit", "items", "keys",
    "lower", "lstrip", "rstrip", "split", "splitlines", "startswith", "strip", "title", "upper",
    "values",
))  # fmt: skip
TESTS: Final = frozenset((
    "boolean", "defined", "divisibleby", "even", "false", "float", "integer", "mapping", "none",
    "number", "odd", "sequence", "string", "true", "undefined",
))  # fmt: skip
_LITERALS = (nodes.List, nodes.Tuple, nodes.Dict)
_ALLOWED: Final = (
    nodes.Template, nodes.Output, nodes.TemplateData, nodes.Name, nodes.Const, nodes.If,
    nodes.CondExpr, nodes.For, nodes.Assign, nodes.Filter, nodes.Test, nodes.Getattr,
    nodes.Getitem, nodes.Slice, nodes.Call, nodes.Compare, nodes.Operand, nodes.And, nodes.Or,
    nodes.Not, nodes.Neg, nodes.Pos, nodes.Add, nodes.Sub, nodes.Mul, nodes.Div, nodes.FloorDiv,
    nodes.Mod, nodes.Concat, nodes.Pair, nodes.Keyword, *_LITERALS,
)  # fmt: skip
_CALLED = {
    nodes.Include: "`include`",
    nodes.Import: "`import`",
    nodes.FromImport: "`import`",
    nodes.Extends: "`extends`",
    nodes.Macro: "`macro`",
    nodes.Pow: "`**`",
    nodes.With: "`with`",
    nodes.AssignBlock: "a `set` block",
    nodes.FilterBlock: "a `filter` block",
}


class _Environment(ImmutableSandboxedEnvironment):
    intercepted_binops = frozenset({"+", "-", "*", "/", "//", "%"})

    def call_binop(self, context: Context, operator: str, left: object, right: object) -> object:
        texts = isinstance(left, str) and isinstance(right, str)
        if operator == "+" and (texts or (isinstance(left, list) and isinstance(right, list))):
            context[WORK].take(size(left) + size(right))
        elif not (_small(left) and _small(right)):
            raise TypeError(
                f"`{operator}` is for numbers"
                if operator != "+"
                else "`+` is for two numbers or two texts; write `~` to put texts together"
            )
        return super().call_binop(context, operator, left, right)


def _small(value: object) -> bool:
    if isinstance(value, int) and value.bit_length() > MOST_BITS:
        raise OverflowError("a number is too large")
    return isinstance(value, int | float)


@cache
def environment() -> _Environment:
    """The one environment of all templates. Its templates share nothing that changes."""
    made = _Environment(
        undefined=StrictUndefined,
        autoescape=False,
        optimized=False,  # nothing is computed ahead, outside of the budget
        keep_trailing_newline=True,
        finalize=cell_text,
    )
    made.globals = {"range": safe_range}
    made.filters = all_filters()
    made.tests = {name: test for name, test in made.tests.items() if name in TESTS}
    return made


def check(tree: nodes.Template) -> None:
    """Raises InvalidRequest for what a template may not do."""
    waiting: deque[nodes.Node] = deque([tree])
    seen = 0
    while waiting:
        node = waiting.popleft()
        seen += 1
        if (reason := _wrong(node)) is not None:
            raise InvalidRequest(f"The template, line {node.lineno}: {reason}.", param="template")
        if seen > MOST_NODES:
            raise InvalidRequest(
                f"The template is too large: it has more than {MOST_NODES:,} parts.",
                param="template",
            )
        waiting += node.iter_child_nodes()


def _wrong(node: nodes.Node) -> str | None:
    if not isinstance(node, _ALLOWED):
        what = _CALLED.get(type(node), f"`{type(node).__name__.lower()}`")
        return f"{what} is not allowed in a prompt"
    if isinstance(node, nodes.For) and node.recursive:
        return "a recursive loop is not allowed in a prompt"
    if isinstance(node, nodes.Getattr) and node.attr.startswith("_"):
        return f"{node.attr!r} begins with an underscore, which is not allowed"
    if isinstance(node, nodes.Call):
        return _wrong_call(node)
    if isinstance(node, _LITERALS) and getattr(node, "ctx", "load") == "load":
        return _wrong_literal(node)
    return None


def _wrong_call(node: nodes.Call) -> str | None:
    called = node.node
    if isinstance(called, nodes.Getattr):
        return None if called.attr in METHODS else f"there is no method {called.attr!r}"
    if isinstance(called, nodes.Name) and called.name == "range":
        return None
    return "only `range` and methods of a cell can be called"


def _wrong_literal(node: nodes.Node) -> str | None:
    """Lists of variables, put into each other, would be exponentially large."""
    if all(
        isinstance(part, nodes.Const | nodes.Pair | nodes.Literal)
        for part in node.iter_child_nodes()
    ):
        return None
    return "a list may have texts and numbers only"


class Bounding(NodeTransformer):
    """Makes the parts of a template that could take long take from the budget."""

    def visit_For(self, node: nodes.For) -> nodes.Node:
        steps = sum(1 for child in node.body for _ in child.find_all(nodes.Node)) + 1
        self.generic_visit(node)
        node.iter = _filtered(node.iter, STEPS, nodes.Const(steps))
        return node

    def visit_Compare(self, node: nodes.Compare) -> nodes.Node:
        self.generic_visit(node)
        node.expr = _filtered(node.expr, WEIGHED)
        for operand in node.ops:
            operand.expr = _filtered(operand.expr, WEIGHED)
        return node

    def visit_Concat(self, node: nodes.Concat) -> nodes.Node:
        self.generic_visit(node)
        return _filtered(nodes.List(node.nodes, lineno=node.lineno), "join")


def _filtered(node: nodes.Node, name: str, *args: nodes.Expr) -> nodes.Filter:
    return nodes.Filter(node, name, list(args), [], None, None, lineno=node.lineno)
