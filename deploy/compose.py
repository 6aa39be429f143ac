"""Reads compose files as an engine would: variables filled in, one file laid over another.

Covers what the files here use of the Compose Specification, and refuses the rest.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]

#: Values of the tree: mappings, lists and scalars of YAML.
Node = Any
_VARIABLE = re.compile(r"\$(?:\$|\{([A-Za-z_]\w*)(?::?([-?])([^}]*))?\}|([A-Za-z_]\w*))")


class ComposeError(ValueError):
    """The file is not what a compose engine reads."""


def read(path: Path) -> Node:
    """The tree of one file, variables still in it."""
    try:
        tree = yaml.safe_load(path.read_text())
    except yaml.YAMLError as error:
        raise ComposeError(f"{path.name} is not YAML: {error}") from error
    if not isinstance(tree, dict) or not isinstance(tree.get("services"), dict):
        raise ComposeError(f"{path.name} has no services")
    return tree


def required_variables(node: Node) -> set[str]:
    """Variables without which the engine refuses to start (`${NAME:?why}`)."""
    if isinstance(node, dict):
        return set().union(*map(required_variables, node.values()))
    if isinstance(node, list):
        return set().union(*map(required_variables, node))
    if isinstance(node, str):
        return {match[1] for match in _VARIABLE.finditer(node) if match[2] == "?"}
    return set()


def fill_in(node: Node, variables: dict[str, str]) -> Node:
    """The tree with variables replaced. Raises ComposeError where one is missing."""
    if isinstance(node, dict):
        return {key: fill_in(value, variables) for key, value in node.items()}
    if isinstance(node, list):
        return [fill_in(value, variables) for value in node]
    return _VARIABLE.sub(lambda m: _value(m, variables), node) if isinstance(node, str) else node


def lay_over(base: Node, top: Node) -> Node:
    """The override rules: mappings merge, lists grow, all else is replaced."""
    if isinstance(base, dict) and isinstance(top, dict):
        both = {key: lay_over(base[key], top[key]) for key in base.keys() & top.keys()}
        return {**base, **top, **both}
    if isinstance(base, list) and isinstance(top, list):
        return base + top
    return top


def _value(match: re.Match[str], variables: dict[str, str]) -> str:
    if match[0] == "$$":
        return "$"
    name, rule, rest = match[1] or match[4], match[2], match[3]
    if variables.get(name):
        return variables[name]
    if rule == "-":
        return str(rest)
    raise ComposeError(f"{name} is needed" + (f": {rest}" if rest else ""))
