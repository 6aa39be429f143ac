"""The options that every command needs to reach a service, and the first look whether it is there.

`PENSTOCK_URL` and `PENSTOCK_API_KEY` stand for them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated

import typer

from penstock.errors import InvalidRequest, PenstockError, Unavailable

if TYPE_CHECKING:
    from penstock.client import Client

URL = "http://127.0.0.1:8000"
Url = Annotated[str, typer.Option(envvar="PENSTOCK_URL", help="Address of the service.")]
ApiKey = Annotated[
    str | None,
    typer.Option(
        envvar="PENSTOCK_API_KEY", show_envvar=True, help="Key, better given by the environment."
    ),
]


def check_model_name(model: str | None) -> None:
    """Refuse a name that is given and empty, as an unset variable of a script leaves it."""
    if model is not None and not model.strip():
        raise InvalidRequest("The name given by --model is empty.", param="model")


def connect(
    url: str, api_key: str | None, on_retry: Callable[[PenstockError, float], None] | None = None
) -> Client:
    """A client of a service that answers now. Raises Unavailable, at once, where none does."""
    from penstock.client import Client

    client = Client(url, api_key, on_retry=on_retry)
    try:
        client.ping()
    except Unavailable as error:
        client.close()
        raise Unavailable(
            f"{error.message} Start one with `penstock up`, or name another with --url."
        ) from None
    return client
