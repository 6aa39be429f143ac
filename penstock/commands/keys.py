"""`penstock keys`: create, list, rotate and revoke API keys, straight in the database."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from penstock.errors import InvalidRequest, NotFound, StackError

if TYPE_CHECKING:
    from penstock.keys import KeySigner, MadeKey
    from storage.database import Database
    from storage.records import ApiKey

UNITS = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}
UNCUT = 10_000  # columns
ONCE = "The key is shown this once; who loses it needs another."

Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
KeyId = Annotated[str, typer.Argument(metavar="ID", help="As `penstock keys list` shows it.")]

group = typer.Typer(
    help="API keys: their owners, what they are good for, and their end.", no_args_is_help=True
)


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.add_typer(group, name="keys")


@group.command()
def create(
    owner: Annotated[
        str, typer.Option(help="Whose jobs, files and chats the key reaches; no other's.")
    ] = "default",
    name: Annotated[str, typer.Option(help="What it is for, in your words.")] = "",
    scope: Annotated[
        list[str] | None,
        typer.Option(
            help="jobs, chat, files, read (all of the owner's) or admin (everything), once or "
            "several times. By default jobs, chat and files."
        ),
    ] = None,
    expires_in: Annotated[
        str | None, typer.Option(help="Such as 90d, 12h or 30m; without it, it has no end.")
    ] = None,
    requests_per_minute: Annotated[
        int | None, typer.Option(min=1, help="By default what the settings say.")
    ] = None,
    tokens_per_minute: Annotated[
        int | None, typer.Option(min=1, help="Of chats; by default what the settings say.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Make a key. It goes to the standard output, once; what is said of it, elsewhere."""
    from storage import keys
    from storage.records import NewApiKey

    _check_owner(owner)
    scopes, seconds = _scopes(scope), _seconds(expires_in)
    with _open() as (database, signer):
        made = signer.make()
        new = NewApiKey(
            id=made.id,
            owner=owner,
            name=name,
            digest=made.digest,
            scopes=scopes,
            expires_in=seconds,
            requests_per_minute=requests_per_minute,
            tokens_per_minute=tokens_per_minute,
        )
        stored = database.transact(lambda conn: keys.add(conn, new))
    _hand_over(made, stored, as_json)


@group.command("list")
def show(
    owner: Annotated[str | None, typer.Option(help="Only this owner's.")] = None,
    as_json: Json = False,
) -> None:
    """List the keys, revoked and expired ones as well."""
    from storage import keys

    with _open() as (database, _):
        found = database.transact(lambda conn: keys.list_keys(conn, owner))
    if as_json:
        typer.echo(json.dumps([_facts(key) for key in found], indent=2))
    else:
        _console().print(_table(found) if found else "There are no keys yet.")


@group.command()
def rotate(
    key_id: KeyId,
    overlap: Annotated[
        str, typer.Option(help="For so long the old one goes on, such as 1h or 7d.")
    ] = "0s",
    as_json: Json = False,
) -> None:
    """Make a new key in a key's place: same owner, scopes, limits and end."""
    from storage import keys

    seconds = _seconds(overlap) or 0.0
    with _open() as (database, signer):
        made, old = signer.make(), _id_of(key_id)
        stored = database.transact(
            lambda conn: keys.rotate(conn, old, made.id, made.digest, seconds)
        )
    if stored is None:
        raise NotFound(f"There is no key {key_id} that is in use and was not rotated yet.")
    _hand_over(made, stored, as_json)


@group.command()
def revoke(key_id: KeyId, as_json: Json = False) -> None:
    """End a key. The API refuses it within 5 seconds."""
    from storage import keys

    with _open() as (database, _):
        ended = database.transact(lambda conn: keys.revoke(conn, _id_of(key_id)))
    if ended is None:
        raise NotFound(f"There is no key {key_id}.")
    typer.echo(json.dumps(_facts(ended)) if as_json else f"Revoked {ended.id} of {ended.owner}.")


@contextmanager
def _open() -> Iterator[tuple[Database, KeySigner]]:
    """The database and the secret: of the settings, else of `penstock up` in the data directory."""
    from penstock.commands.config import key_secret, load_settings, stack_database
    from penstock.keys import KeySigner

    settings = load_settings()
    url, secret = stack_database(settings), key_secret(settings)
    try:
        from storage.database import Database
    except ModuleNotFoundError as error:
        raise StackError(
            "`penstock keys` runs where the service does, with pip install 'penstock[server]': "
            f"the module {error.name} is missing."
        ) from error
    database = Database(url, pool_size=1, application_name="penstock-keys")
    try:
        yield database, KeySigner(secret)
    finally:
        database.close()


def _check_owner(owner: str) -> None:
    if not re.fullmatch(r"[A-Za-z0-9._@-]{1,64}", owner):
        raise InvalidRequest(
            "The owner has to be 1 to 64 letters, digits, dots, hyphens, underscores or @.",
            param="owner",
        )


def _scopes(given: list[str] | None) -> tuple[str, ...]:
    from penstock.keys import ALL_SCOPES, DEFAULT_SCOPES

    for scope in given or ():
        if scope not in ALL_SCOPES:
            known = ", ".join(sorted(ALL_SCOPES))
            raise InvalidRequest(f"There is no scope {scope!r}; there are {known}.", param="scope")
    return tuple(dict.fromkeys(given or DEFAULT_SCOPES))


def _seconds(text: str | None) -> float | None:
    if text is None:
        return None
    form = re.fullmatch(r"(\d{1,6})([smhd])", text)
    if form is None:
        raise InvalidRequest(f"{text!r} is no time such as 90d, 12h, 30m or 0s.")
    return float(form[1]) * UNITS[form[2]]


def _id_of(text: str) -> str:
    """The id, where somebody gives the beginning of the key as well."""
    return text.removeprefix("psk_")[:16]


def _hand_over(made: MadeKey, stored: ApiKey, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps({"key": made.text, **_facts(stored)}))
        return
    typer.echo(made.text)
    typer.echo(f"{stored.id} of {stored.owner}: {', '.join(stored.scopes)}. {ONCE}", err=True)


def _facts(key: ApiKey) -> dict[str, object]:
    times = ("created_at", "last_used_at", "expires_at", "revoked_at")
    numbers = ("requests_per_minute", "tokens_per_minute")
    return {
        "id": key.id,
        "owner": key.owner,
        "name": key.name,
        "scopes": list(key.scopes),
        "state": _state(key),
        **{time: at.isoformat() if (at := getattr(key, time)) else None for time in times},
        **{number: getattr(key, number) for number in numbers},
    }


def _state(key: ApiKey) -> str:
    if key.seconds_left is None or key.seconds_left > 0:
        return "in use" if key.revoked_at is None else "ending"
    ended = key.revoked_at is not None and key.revoked_at <= (key.expires_at or key.revoked_at)
    return "revoked" if ended else "expired"


def _console() -> Console:
    console = Console(highlight=False)
    if not console.is_terminal:  # a program reads it: nothing is cut
        console.width = UNCUT
    return console


def _table(found: list[ApiKey]) -> Table:
    table = Table(box=None, pad_edge=False)
    table.add_column("id", no_wrap=True)
    for name in ("owner", "name", "scopes", "state", "last used", "ends"):
        table.add_column(name, overflow="fold")
    for key in found:
        ends = min(filter(None, (key.expires_at, key.revoked_at)), default=None)
        table.add_row(
            key.id,
            key.owner,
            escape(key.name),
            ", ".join(key.scopes),
            _state(key),
            _minute(key.last_used_at),
            _minute(ends),
        )
    return table


def _minute(at: datetime | None) -> str:
    return f"{at:%Y-%m-%d %H:%M}" if at is not None else "never"
