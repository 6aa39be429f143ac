"""`penstock chat`: talk to the served model at the terminal, each reply as it is written."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Annotated

import typer
from rich.console import Console

from penstock.commands.connection import URL, ApiKey, Url, check_model_name, connect
from penstock.errors import PenstockError

HELP = "/reset forgets the conversation, /quit or Ctrl-D leaves."


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(chat)


def chat(
    message: Annotated[
        str | None, typer.Argument(help="Ask this and leave; without it, talk.")
    ] = None,
    system: Annotated[str | None, typer.Option(help="System prompt.")] = None,
    max_tokens: Annotated[int, typer.Option(help="Most new tokens of a reply.")] = 200,
    temperature: Annotated[float, typer.Option(help="0 always takes the likeliest token.")] = 0.7,
    model: Annotated[str | None, typer.Option(help="By default the one that is served.")] = None,
    url: Url = URL,
    api_key: ApiKey = None,
) -> None:
    """Talk to the served model; it remembers the conversation."""
    check_model_name(model)
    fields: dict[str, object] = {"max_tokens": max_tokens, "temperature": temperature}
    given = {"system": system, "model": model}
    fields |= {name: value for name, value in given.items() if value is not None}
    with connect(url, api_key) as client:
        conversation: str | None = None

        def say(text: str, *, reset: bool) -> None:
            nonlocal conversation
            with client.chat_stream(
                text, conversation_id=conversation, reset=reset, **fields
            ) as pieces:
                for piece in pieces:
                    typer.echo(piece, nl=False)
            typer.echo()
            conversation = pieces.reply.conversation_id

        if message is not None:
            say(message, reset=False)
        else:
            _talk(say)


def _talk(say: Callable[..., None]) -> None:
    console = Console(highlight=False)
    console.print(HELP, style="dim")
    reset = False
    while True:
        try:
            text = _ask()
            if text == "/reset":
                reset = True
                console.print("Forgotten.", style="dim")
            elif text:
                say(text, reset=reset)
                reset = False
        except PenstockError as error:
            typer.echo(error.message, err=True)
        except (EOFError, KeyboardInterrupt):
            return


def _ask() -> str:
    """One line of the user's. Raises EOFError when there is no more, or at /quit."""
    with_prompt = sys.stdin.isatty()
    text = input("> " if with_prompt else "").strip()
    if text in {"/quit", "/exit"}:
        raise EOFError
    return text
