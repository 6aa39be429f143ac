"""Penstock: feeds a GPU from a durable queue. This package is what people install and import."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from penstock.annotation.sdk import annotate
    from penstock.client import AsyncClient, Client

__version__ = "0.1.0"
__all__ = ["AsyncClient", "Client", "__version__", "annotate"]


def __getattr__(name: str) -> object:
    """What is imported when it is asked for: the servers and the commands pay nothing."""
    if name in ("AsyncClient", "Client"):
        from penstock import client

        return getattr(client, name)
    if name == "annotate":
        from penstock.annotation.sdk import annotate

        return annotate
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
