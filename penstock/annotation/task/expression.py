"""Filters of rows: `needs_review and probability < 0.5`. Names are columns; nothing is called but
the functions listed here. Knows no table.

Python's own parser reads them, and a list of allowed parts decides what they may say. Text, list
and number of work are bounded by the length of the expression: nothing in it repeats.
"""

from __future__ import annotations

import ast
import warnings
from collections.abc import Mapping
from dataclasses import dataclass

from penstock.annotation.task.operations import (
    ARITHMETIC,
    COMPARISONS,
    FUNCTIONS,
    as_told,
    negative,
    truth,
)
from penstock.errors import InvalidRequest

MOST_CHARS = 1_000
MOST_DEPTH = 50
COLUMN = "column"
_CONSTANTS = {"true": True, "false": False, "null": None, "none": None}
_PARTS = (
    ast.Expression, ast.BoolOp, ast.And, ast.Or, ast.UnaryOp, ast.Not, ast.USub, ast.BinOp,
    ast.Compare, ast.Call, ast.Name, ast.Load, ast.Constant, ast.List, ast.Tuple,
    *ARITHMETIC, *COMPARISONS,
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Expression:
    """A parsed expression. `names` are the columns it needs, each once, in order."""

    text: str
    names: tuple[str, ...]
    body: ast.expr

    @classmethod
    def parse(cls, text: str, param: str = "where") -> Expression:
        """Raises InvalidRequest for what is no expression. A column whose name is no name is
        written `column("my column")`."""
        try:
            if len(text) > MOST_CHARS:
                raise ValueError(f"it is longer than {MOST_CHARS:,} characters")
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", SyntaxWarning)  # of backslashes, and of `is`
                warnings.simplefilter("ignore", DeprecationWarning)
                tree = ast.parse(text.strip(), mode="eval")
            names = _names(tree)
        except SyntaxError as error:
            place = f" at character {error.offset}" if error.offset else ""
            raise InvalidRequest(
                f"{text!r} is no expression{place}: {error.msg}.", param=param
            ) from None
        except (ValueError, RecursionError, MemoryError) as error:
            shown = text if len(text) <= MOST_CHARS else text[:40] + "…"
            reason = str(error) or "it is nested too deeply"
            raise InvalidRequest(f"{shown!r} is no expression: {reason}.", param=param) from None
        return cls(text, tuple(names), tree.body)

    def evaluate(self, row: Mapping[str, object]) -> object:
        """What it comes to for a row: true or false, a number or a text; None where a cell that
        it needs is empty. Cells are converted by need: text from a CSV file compares as a number
        or a truth value with one. Raises InvalidRequest for a column that the row has not, or for
        a text where a number is needed."""
        try:
            return as_told(_value(self.body, row))
        except KeyError as error:
            raise InvalidRequest(
                f"There is no column {error.args[0]!r}, which {self.text!r} names.", param="where"
            ) from None
        except (TypeError, ValueError, ArithmeticError) as error:
            raise InvalidRequest(f"{self.text!r}: {error}.", param="where") from None

    def holds(self, row: Mapping[str, object]) -> bool:
        """Whether it is true of a row."""
        return truth(self.evaluate(row))


def _names(tree: ast.Expression) -> dict[str, None]:
    """The columns, in order. Raises ValueError for what is not allowed."""
    names: dict[str, None] = {}
    waiting: list[tuple[ast.AST, int]] = [(tree, 0)]
    while waiting:
        node, depth = waiting.pop()
        if depth > MOST_DEPTH:
            raise ValueError("it is nested too deeply")
        if (reason := _wrong(node)) is not None:
            raise ValueError(reason)
        if (name := _name(node)) is not None:
            names[name] = None
        inner = node.args if isinstance(node, ast.Call) else ast.iter_child_nodes(node)
        if _column(node) is None:
            waiting += [(child, depth + 1) for child in reversed(list(inner))]
    return names


def _wrong(node: ast.AST) -> str | None:
    if isinstance(node, ast.Attribute | ast.Subscript):
        return "cells have no parts"
    if not isinstance(node, _PARTS):
        return f"`{type(node).__name__.lower()}` is not allowed"
    if isinstance(node, ast.Constant) and not isinstance(
        node.value, str | int | float | bool | None
    ):
        return f"{node.value!r} is not allowed"
    if isinstance(node, ast.Call):
        return _wrong_call(node)
    return None


def _wrong_call(node: ast.Call) -> str | None:
    name = node.func.id if isinstance(node.func, ast.Name) else None
    known = ", ".join((COLUMN, *FUNCTIONS))
    if name is None or (name != COLUMN and name not in FUNCTIONS):
        return f"there is no function {name or 'of this kind'}; there are: {known}"
    if node.keywords or any(isinstance(each, ast.Starred) for each in node.args):
        return f"{name} takes plain values"
    if name == COLUMN:
        return None if _column(node) else 'column takes a name in quotes: column("my column")'
    least, most, _ = FUNCTIONS[name]
    if not least <= len(node.args) <= most:
        return f"{name} takes {least} value{'s' if least > 1 else ''}, not {len(node.args)}"
    return None


def _column(node: ast.AST) -> str | None:
    """The name in `column("name")`."""
    if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Name):
        return None
    if node.func.id != COLUMN or len(node.args) != 1 or not isinstance(node.args[0], ast.Constant):
        return None
    name = node.args[0].value
    return name if isinstance(name, str) else None


def _name(node: ast.AST) -> str | None:
    if isinstance(node, ast.Name):
        return None if node.id.lower() in _CONSTANTS else node.id
    return _column(node)


def _value(node: ast.expr, row: Mapping[str, object]) -> object:
    found: object
    match node:
        case ast.Constant():
            found = node.value
        case ast.Name():
            found = row[node.id] if _name(node) else _CONSTANTS[node.id.lower()]
        case ast.BoolOp():
            found = _joined(node, row)
        case ast.UnaryOp():
            inner = _value(node.operand, row)
            found = not truth(inner) if isinstance(node.op, ast.Not) else negative(inner)
        case ast.BinOp():
            found = ARITHMETIC[type(node.op)](_value(node.left, row), _value(node.right, row))
        case ast.Compare():
            found = _compared(node, row)
        case ast.List() | ast.Tuple():
            found = [_value(part, row) for part in node.elts]
        case ast.Call(func=ast.Name(id=name)) if name in FUNCTIONS:
            found = FUNCTIONS[name][2](*(_value(part, row) for part in node.args))
        case _:
            found = row[_column(node) or ""]
    return found


def _joined(node: ast.BoolOp, row: Mapping[str, object]) -> bool:
    each = (truth(_value(part, row)) for part in node.values)
    return all(each) if isinstance(node.op, ast.And) else any(each)


def _compared(node: ast.Compare, row: Mapping[str, object]) -> bool:
    left = _value(node.left, row)
    for operator, part in zip(node.ops, node.comparators, strict=True):
        right = _value(part, row)
        if not COMPARISONS[type(operator)](left, right):
            return False
        left = right
    return True
