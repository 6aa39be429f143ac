"""Prompts from `{column}` placeholders: plain substitution and nothing else.

Values are never looked into: no attributes, no indices, no format specs, no second pass.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from penstock.errors import InvalidRequest

CHOICES = "choices"
_TOKEN = re.compile(r"\{\{|\}\}|\{([^{}]*)\}|[{}]")
_BACKSLASH = re.compile(r"\\([nt\\])")
_MEANT = {"n": "\n", "t": "\t", "\\": "\\"}
_ESCAPES = {"{{": "{", "}}": "}"}


@dataclass(frozen=True, slots=True)
class Column:
    """A placeholder."""

    name: str


@dataclass(frozen=True, slots=True)
class Template:
    """A parsed template: texts and placeholders in turn."""

    parts: tuple[str | Column, ...]

    @classmethod
    def parse(cls, text: str, choices: tuple[str, ...] = ()) -> Template:
        """With `choices`, `{choices}` stands for them; where it is missing, a last line asks for
        one of them. Raises InvalidRequest for a brace that opens or closes nothing."""
        listed = ", ".join(choices)
        parts: list[str | Column] = []
        asked = False
        end = 0
        for match in _TOKEN.finditer(text):
            parts.append(text[end : match.start()])
            end = match.end()
            if match[0] in _ESCAPES:
                parts.append(_ESCAPES[match[0]])
            elif not match[1]:
                raise InvalidRequest(
                    f"The template has a lone {match[0]!r} at character {match.start() + 1}; "
                    "write {column} for a column, {{ and }} for braces.",
                    param="template",
                )
            elif choices and match[1] == CHOICES:
                parts.append(listed)
                asked = True
            else:
                parts.append(Column(match[1]))
        parts.append(text[end:])
        if choices and not asked:
            parts.append(f"\nAnswer with one of: {listed}.")
        return cls(tuple(part for part in parts if part))

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns it needs, each once, in order."""
        names = (part.name for part in self.parts if isinstance(part, Column))
        return tuple(dict.fromkeys(names))

    def require(self, columns: Iterable[str], where: str) -> None:
        """Raise InvalidRequest unless `columns` has all that the template names."""
        there = list(columns)
        missing = [name for name in self.columns if name not in there]
        if missing:
            raise InvalidRequest(
                f"{where} has no column {missing[0]!r}; it has: {', '.join(there) or 'none'}.",
                param="template",
            )

    def render(self, row: Mapping[str, object]) -> str:
        """The prompt of one row that has all `columns`."""
        return "".join(
            cell_text(row[part.name]) if isinstance(part, Column) else part for part in self.parts
        )


def unescape(text: str) -> str:
    """`\\n`, `\\t` and `\\\\` as a shell leaves them: newline, tab and backslash."""
    return _BACKSLASH.sub(lambda match: _MEANT[match[1]], text)


def cell_text(value: object) -> str:
    """A cell as text: null is nothing, and what is no text is JSON."""
    if isinstance(value, str):
        return value
    return "" if value is None else json.dumps(value, ensure_ascii=False)
