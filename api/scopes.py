"""What a route asks of a key, declared where the route is: `APIRouter(dependencies=[needs(…)])`.

`needs(Scope.JOBS, Scope.CHAT)`: one of these; `needs()`: any key. Knows no key.
"""

from __future__ import annotations

from typing import Annotated, Any, Final

from fastapi import Depends, Request

from api.callers import Caller
from api.dependencies import get_caller
from penstock.keys import Scope

READING: Final = frozenset({"GET", "HEAD", "OPTIONS"})


class Scoped:
    """A dependency that lets in keys with one of `scopes`."""

    def __init__(self, *scopes: Scope) -> None:
        self.scopes = scopes


class Needs(Scoped):
    """Of a route whose key comes in the header."""

    async def __call__(
        self, request: Request, caller: Annotated[Caller, Depends(get_caller)]
    ) -> None:
        caller.require(*self.scopes, reading=request.method in READING)


def needs(*scopes: Scope) -> Any:
    """Refuse keys that have none of the scopes (see `Caller.require`)."""
    return Depends(Needs(*scopes))
