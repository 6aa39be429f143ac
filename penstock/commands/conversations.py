"""`penstock conversations export | import`: all that was said, as JSON lines, out and in again."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, BinaryIO

import typer

from penstock.commands.config import load_settings, stack_database
from penstock.errors import InvalidRequest

if TYPE_CHECKING:
    from storage.database import Database

STANDARD = "-"

commands = typer.Typer(
    name="conversations",
    help="Export conversations as JSON lines, and import them, while the service runs.",
    no_args_is_help=True,
)
File = Annotated[str, typer.Argument(metavar="FILE", help="A path, or `-`.")]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.add_typer(commands)


@commands.command(name="export")
def export_conversations(
    file: File,
    owner: Annotated[str | None, typer.Option(help="Only this owner's.")] = None,
) -> None:
    """Write every turn as a line of JSON: with its owner, its times and its answer."""
    with _database() as database:
        from storage.transcripts import read_all
        from workers.exports import lines, write_file

        content = lines(read_all(database, owner))
        if file == STANDARD:
            sys.stdout.buffer.writelines(content)
            sys.stdout.buffer.flush()
            return
        count = write_file(Path(file), content)
    typer.echo(f"{count:,} turns exported to {file}")


@commands.command(name="import")
def import_conversations(file: File) -> None:
    """Store the turns of an export that are not there: ids, owners, times and order stay."""
    from storage.transcripts import store
    from workers.exports import read_turns

    seen = stored = 0
    with _database() as database, _opened(file) as source:
        try:
            for portion in read_turns(source):
                stored += store(database, portion)
                seen += len(portion)
        except InvalidRequest as error:
            raise InvalidRequest(
                f"{error.message} {stored:,} turns before it were imported; once the line is "
                "mended, the file can be imported again.",
                param=error.param,
            ) from None
    typer.echo(f"{stored:,} turns imported, {seen - stored:,} were there already")


@contextmanager
def _database() -> Iterator[Database]:
    from storage.database import Database

    with closing(Database(stack_database(load_settings()), pool_size=1)) as database:
        yield database


@contextmanager
def _opened(file: str) -> Iterator[BinaryIO]:
    if file == STANDARD:
        yield sys.stdin.buffer
        return
    with Path(file).open("rb") as source:
        yield source
