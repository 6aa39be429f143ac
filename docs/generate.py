"""Writes `docs/reference/` from the code: the settings, the command line, the task file's schema.

`python -m docs.generate` writes, `--check` only compares. Same output on every machine.
"""

from __future__ import annotations

import socket
import sys
import types
import typing
from collections.abc import Iterator
from pathlib import Path

import typer
from pydantic import BaseModel, SecretStr
from pydantic.fields import FieldInfo

from penstock.annotation.task.schema import schema_text
from penstock.cli import app
from penstock.settings import Settings

REFERENCE = Path(__file__).parent / "reference"
NOTE = "<!-- Written by `make docs` from the code; do not edit. -->"
_TYPES = {str: "text", int: "integer", float: "number", bool: "boolean", Path: "path"}


def settings_page() -> str:
    """Every setting with its variable, type, default and meaning."""
    lines = [
        "# Settings",
        "",
        NOTE,
        "",
        "Read from the environment, or from a file `.env` where a process starts; the environment "
        "wins. Secrets never show in logs.",
    ]
    general: list[str] = []
    for name, field in Settings.model_fields.items():
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            lines += ["", f"## {name.title()}", "", (kind.__doc__ or "").strip(), ""]
            lines += _table(f"PENSTOCK_{name.upper()}__", kind)
        else:
            general.append(_row("PENSTOCK_", name, field))
    return "\n".join([*lines, "", "## General", "", *_HEAD, *general, ""])


_HEAD = ["| variable | type | default | meaning |", "|---|---|---|---|"]


def _table(prefix: str, model: type[BaseModel]) -> list[str]:
    return [*_HEAD, *(_row(prefix, name, field) for name, field in model.model_fields.items())]


def _row(prefix: str, name: str, field: FieldInfo) -> str:
    cells = (
        f"`{prefix}{name.upper()}`",
        _type(field.annotation),
        _default(field),
        field.description or "",
    )
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


def _type(kind: object) -> str:
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is typing.Literal:
        return " | ".join(f"`{value}`" for value in arguments)
    if origin in (typing.Union, types.UnionType):
        return _type(next(part for part in arguments if part is not type(None)))
    if origin is list:
        return "list of secrets" if arguments[0] is SecretStr else f"list of {_type(arguments[0])}"
    if origin is dict:
        return "JSON object"
    if kind is SecretStr:
        return "secret"
    return _TYPES[typing.cast(type, kind)]


def _default(field: FieldInfo) -> str:
    value = field.get_default(call_default_factory=True, validated_data={})
    if value is None or value in ([], {}):
        return ""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if value == f"{socket.gethostname()}-0":  # nothing of this machine in the page
        value = "<hostname>-0"
    return f"`{value}`"


def cli_page() -> str:
    """Every command with its arguments and options."""
    root = typer.main.get_command(app)
    lines = ["# Command line", "", NOTE, "", (root.help or "").strip(), ""]
    commands = dict(_commands(root))
    lines += [f"- [`penstock {name}`](#penstock-{name.replace(' ', '-')})" for name in commands]
    for name, command in commands.items():
        lines += ["", f"## penstock {name}", "", *_paragraphs(command.help or "")]
        shown = [*_parameters(command.params)]
        if shown:
            lines += ["", "| | meaning | default |", "|---|---|---|", *shown]
    return "\n".join([*lines, ""])


def _commands(group: typing.Any, above: str = "") -> Iterator[tuple[str, typing.Any]]:
    """Every command by its whole name; of a group its members."""
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from _commands(command, f"{above}{name} ")
        else:
            yield above + name, command


def _paragraphs(text: str) -> list[str]:
    return [line.strip() for line in text.strip().splitlines()]


def _parameters(parameters: list[typing.Any]) -> Iterator[str]:
    for parameter in parameters:
        if parameter.name == "help" or getattr(parameter, "hidden", False):
            continue
        is_argument = parameter.param_type_name == "argument"
        names = parameter.name.upper() if is_argument else ", ".join(_spellings(parameter))
        meaning = getattr(parameter, "help", None) or ""
        kinds = typing.get_args(parameter.type_descriptor.annotation)
        if choices := [kind for kind in kinds if not isinstance(kind, type)]:
            meaning += f" One of {', '.join(f'`{choice}`' for choice in choices)}."
        default = parameter.default
        shown = "" if default in (None, False, ()) else f"`{default}`"
        cells = (f"`{names}`", meaning.strip(), "required" if parameter.required else shown)
        yield f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


def _spellings(option: typing.Any) -> list[str]:
    return [*option.opts, *option.secondary_opts]


def main(arguments: list[str]) -> int:
    """Write the pages, or compare them; the exit status."""
    pages = {
        "settings.md": settings_page(),
        "cli.md": cli_page(),
        "task.schema.json": schema_text(),
    }
    REFERENCE.mkdir(parents=True, exist_ok=True)
    stale = [
        name
        for name, text in pages.items()
        if not (REFERENCE / name).is_file() or (REFERENCE / name).read_text() != text
    ]
    if arguments == ["--check"]:
        if stale:
            sys.stderr.write(f"docs/reference is out of date ({', '.join(stale)}): make docs\n")
        return 1 if stale else 0
    for name in stale:
        (REFERENCE / name).write_text(pages[name])
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
