"""The `penstock` command: collects the commands and turns errors into one sentence each.

Knows no command's work; nothing heavy is imported until a command runs.
"""

from __future__ import annotations

import sys

import typer

from penstock import __version__
from penstock.commands import annotation, bench, chat, conversations, keys, processes, status, up
from penstock.errors import PenstockError

app = typer.Typer(
    name="penstock",
    help="Feeds a GPU from a durable queue: batch and chat inference on your own hardware.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)


def _version(asked: bool) -> None:
    if asked:
        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def _root(
    version: bool = typer.Option(
        False, "--version", callback=_version, is_eager=True, help="Print the version and leave."
    ),
) -> None:
    """Options of every command."""


for _commands in (up, annotation, chat, status, bench, conversations, keys, processes):
    _commands.register(app)


SERVERS = {command.__name__ for command in processes.COMMANDS}


def main() -> None:
    """Run the command line. What a user can get wrong ends in a sentence, never a traceback."""
    try:
        app()
    except PenstockError as error:
        _leave(error.message, 1)
    except OSError as error:
        if sys.argv[1:2] and sys.argv[1] in SERVERS:
            raise  # where in a server it was, its log should say
        _leave(_os_sentence(error), 1)
    except ValueError as error:
        sentence = _settings_sentence(error)
        if sentence is None:
            raise
        _leave(sentence, 2)


def _settings_sentence(error: ValueError) -> str | None:
    """Which variable is wrong and why, where `error` comes from the settings; else None."""
    from pydantic import ValidationError
    from pydantic_settings import SettingsError

    if isinstance(error, SettingsError):
        return f"The settings cannot be read: {error}."
    if not isinstance(error, ValidationError) or error.title != "Settings":
        return None
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    path = [part.upper() for part in first["loc"] if isinstance(part, str)]
    return f"PENSTOCK_{'__'.join(path)} is not valid: {first['msg']}."


def _os_sentence(error: OSError) -> str:
    reason = error.strerror or str(error) or type(error).__name__
    return f"{error.filename}: {reason}." if error.filename else f"{reason}."


def _leave(sentence: str, code: int) -> None:
    typer.echo(f"penstock: {sentence}", err=True)
    sys.exit(code)
