"""The Python SDK: `Client` and `AsyncClient` talk to a running service. Knows the wire contract
alone."""

from penstock.client.aio import AsyncChatStream, AsyncClient, AsyncJob
from penstock.client.answers import Answer
from penstock.client.client import DEFAULT_URL, ChatStream, Client, Job

__all__ = [
    "DEFAULT_URL",
    "Answer",
    "AsyncChatStream",
    "AsyncClient",
    "AsyncJob",
    "ChatStream",
    "Client",
    "Job",
]
