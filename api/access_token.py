"""A key in the address, for those who cannot set a header: `EventSource` and browsers' WebSockets.

It is taken out of the address before anybody could write that down, and looked at by streams alone.
"""

from __future__ import annotations

from typing import Annotated, Final
from urllib.parse import parse_qsl, urlencode

from fastapi import Depends, Query
from fastapi.security import HTTPAuthorizationCredentials
from starlette.requests import HTTPConnection
from starlette.types import ASGIApp, Receive, Send
from starlette.types import Scope as Connection

from api.dependencies import Parts, bearer, caller_of, get_parts, owner_of
from api.scopes import Scoped
from penstock.keys import Scope

NAME: Final = "access_token"
KEPT: Final = "penstock.access_token"


class HideAccessToken:
    """Moves the parameter to a place of its own. Plain ASGI, outermost: servers log addresses."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Connection, receive: Receive, send: Send) -> None:
        query = scope.get("query_string", b"")
        if NAME.encode() in query:
            pairs = parse_qsl(query.decode("latin-1"), keep_blank_values=True)
            scope[KEPT] = next((value for name, value in pairs if name == NAME), None)
            kept = [(name, value) for name, value in pairs if name != NAME]
            scope["query_string"] = urlencode(kept).encode("ascii")
        await self._app(scope, receive, send)


def given_key(connection: HTTPConnection) -> str | None:
    """The key of the header, else the one that was in the address."""
    scheme, _, key = connection.headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer":
        return key.strip()
    kept: str | None = connection.scope.get(KEPT)
    return kept


async def stream_owner(connection: HTTPConnection, parts: Parts, *scopes: Scope) -> str:
    """Whose stream this is, where the key has one of the scopes. Raises `Unauthorized` and what
    else may speak against a request."""
    return await owner_of(parts, given_key(connection), *scopes)


async def check_again(connection: HTTPConnection, parts: Parts, *scopes: Scope) -> None:
    """Whether its key is still good to read with; counts as no request. Raises `Unauthorized`,
    `Forbidden`, `Unavailable`."""
    caller = await parts.callers.identify(given_key(connection))
    caller.require(*scopes, reading=True)


class StreamNeeds(Scoped):
    """The dependency of a stream: whose it is, where the key has one of `scopes`. `access_token`
    is here for the documentation: `HideAccessToken` has taken it."""

    async def __call__(
        self,
        connection: HTTPConnection,
        parts: Annotated[Parts, Depends(get_parts)],
        credentials: Annotated[HTTPAuthorizationCredentials | None, Depends(bearer)],
        access_token: Annotated[
            str | None, Query(description="The key, where no header can be set.")
        ] = None,
    ) -> str:
        caller = await caller_of(parts, given_key(connection))
        caller.require(*self.scopes, reading=True)
        return caller.owner
