"""Walks the documentation of the standard library and writes it to stdout as JSON.

Imports the standard library alone and is run by `extract` in an isolated interpreter, since a
process that has loaded other packages sees what they have patched.
"""

import importlib
import inspect
import json
import re
import sys
import warnings
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import cast

MAX_DOCSTRING = 400  # characters; keeps a prompt below 200 tokens
MAX_SIGNATURE = 80  # characters
MAX_SUMMARY = 120  # characters
MIN_DOCSTRING = 12  # characters; shorter ones ("x.y", "Foo.") say nothing

Columns = dict[str, str]
PLAIN = (str, bytes, int, float, complex, bool, type(None), tuple, type)


class _Elided:
    """Stands for a default value whose text would differ from machine to machine."""

    def __repr__(self) -> str:
        return "..."


def rows_of(path: str, topic: str) -> Iterator[Columns]:
    """The documented public names of one module, or of a class of `builtins`."""
    found = _load(path)
    if isinstance(found, type):
        yield from _class_rows(found, path.removeprefix("builtins."), topic)
    elif found is not None:
        for name, value in _public(found):
            qualified = name if path == "builtins" else f"{path}.{name}"
            if isinstance(value, type):
                yield from _class_rows(value, qualified, topic)
            else:
                yield from _row(qualified, "function", value, topic)


def _load(path: str) -> ModuleType | type | None:
    """The module or built-in type, None where this Python has no such thing."""
    try:
        if path.startswith("builtins."):
            built_in = getattr(importlib.import_module("builtins"), path.partition(".")[2])
            return built_in if isinstance(built_in, type) else None
        return importlib.import_module(path)
    except (ImportError, AttributeError, OSError):
        return None


def _public(module: ModuleType) -> Iterator[tuple[str, object]]:
    """What a module itself offers, functions first; names that it merely imports are left out."""
    declared = set(getattr(module, "__all__", ()))
    names = sorted(declared or vars(module))
    for name in sorted(names, key=lambda name: isinstance(vars(module).get(name), type)):
        value = vars(module).get(name)
        if name.startswith("_") or not (isinstance(value, type) or inspect.isroutine(value)):
            continue
        home = getattr(value, "__module__", None) or module.__name__
        if declared or home in {module.__name__, f"_{module.__name__}"}:
            yield name, value


def _class_rows(cls: type, name: str, topic: str) -> Iterator[Columns]:
    yield from _row(name, "class", cls, topic)
    for member, value in sorted(vars(cls).items()):
        function = getattr(value, "__func__", value)
        if not member.startswith("_") and inspect.isroutine(function):
            yield from _row(f"{name}.{member}", "method", function, topic)


def _row(name: str, kind: str, value: object, topic: str) -> Iterator[Columns]:
    raw = getattr(value, "__doc__", None)
    if not isinstance(raw, str) or (kind == "class" and _inherited(value, raw)):
        return
    docstring = _shorten(" ".join(inspect.cleandoc(raw).split()), MAX_DOCSTRING)
    if len(docstring) >= MIN_DOCSTRING:
        yield {
            "name": name,
            "kind": kind,
            "signature": _signature(name, value),
            "docstring": docstring,
            "summary": _summary(raw),
            "topic": topic,
        }


def _inherited(value: object, raw: str) -> bool:
    bases = getattr(value, "__mro__", ())[1:]
    return any(raw == getattr(base, "__doc__", None) for base in bases)


def _signature(name: str, value: object) -> str:
    short = name.rpartition(".")[2]
    try:
        signature = inspect.signature(cast(Callable[..., object], value))
    except (ValueError, TypeError, AttributeError, NameError):
        return f"{short}(...)"
    parameters = [
        parameter
        if parameter.default is parameter.empty or type(parameter.default) in PLAIN
        else parameter.replace(default=_Elided())
        for parameter in signature.parameters.values()
    ]
    text = f"{short}{signature.replace(parameters=parameters)}"
    text = re.sub(r"<class '?(?:\w+\.)*(\w+)'?[^<>]*>", r"\1", text)
    return _shorten(text, MAX_SIGNATURE)


def _summary(raw: str) -> str:
    """The first sentence, without the signature that old docstrings begin with."""
    lines = inspect.cleandoc(raw).split("\n")
    while len(lines) > 1 and (not lines[0].strip() or _is_signature(lines[0].strip())):
        lines = lines[1:]
    first = " ".join("\n".join(lines).split("\n\n")[0].split())
    first = re.sub(r"^[\w.]+\([^)]*\)\s*(?:-+>\s*[^:]{1,40}?)?\s*(?:--?|:)\s+", "", first)
    sentence = re.split(r"(?<=[^.][.!?])\s+(?=[A-Z])", first, maxsplit=1)[0]
    return _shorten(sentence, MAX_SUMMARY)


def _is_signature(text: str) -> bool:
    return re.fullmatch(r"[\w.]+\(.*\)(\s*[-=]+>\s*.{1,60})?", text) is not None


def _shorten(text: str, limit: int) -> str:
    return text if len(text) <= limit else text[: limit + 1].rsplit(" ", 1)[0]


def main() -> None:
    """Read {topic: [module, ...]} as JSON from stdin, write the list of rows to stdout."""
    warnings.simplefilter("ignore")
    topics: dict[str, list[str]] = json.load(sys.stdin)
    pairs = [(module, topic) for topic, modules in topics.items() for module in modules]
    rows = [row for module, topic in pairs for row in rows_of(module, topic)]
    json.dump(rows, sys.stdout)


if __name__ == "__main__":
    main()
