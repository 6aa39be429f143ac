"""Requests with limits: a timeout for each, and bounded retries of those that are safe to repeat.

Knows no route, and not whether its network blocks.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from http import HTTPStatus
from typing import TypeVar

import httpx2
from pydantic import BaseModel, ValidationError

from penstock.client.call import Call
from penstock.client.network import Network
from penstock.client.retries import Failure, Patience, no_answer, refused
from penstock.errors import PenstockError

Model = TypeVar("Model", bound=BaseModel)
#: Is told the error and the pause in seconds before each repetition.
OnRetry = Callable[[PenstockError, float], None]


class Connection:
    """A service at the end of a network."""

    def __init__(
        self, network: Network, base_url: str, retry_for: float, on_retry: OnRetry | None
    ) -> None:
        self.network = network
        self.base_url = base_url
        self._retry_for = retry_for
        self._on_retry = on_retry

    async def send(self, call: Call, *, retry_for: float | None = None) -> httpx2.Response:
        """The answer to `call`. Raises the error that the service named, or Unavailable when
        it stayed away for `retry_for` seconds after the first failed attempt."""
        patience = self.patience(retry_for)
        while True:
            try:
                response = await self.network.send(call)
            except httpx2.TransportError as error:
                failure = no_answer(call, self.base_url, error)
            else:
                if response.status_code < HTTPStatus.BAD_REQUEST:
                    return response
                failure = refused(call, response)
            await self.pause(patience, failure)

    async def fetch(self, call: Call, model: type[Model]) -> Model:
        """The answer to `call`, as a `model`. Raises as `send` does."""
        return read(await self.send(call), model)

    async def events(self, call: Call) -> AsyncGenerator[httpx2.ServerSentEvent, None]:
        """The events of one stream, until it ends or breaks: which of both, its reader knows.

        Raises as `send` does as long as the stream has not begun.
        """
        patience = self.patience()
        begun = False
        while not begun:
            try:
                async with self.network.open(call) as response:
                    if begun := response.status_code < HTTPStatus.BAD_REQUEST:
                        async for event in self.network.events(response):
                            yield event
                        return
                    await self.network.read(response)
                    failure = refused(call, response)
            except httpx2.TransportError as error:
                failure = no_answer(call, self.base_url, error)
            if not begun:
                await self.pause(patience, failure)

    def patience(self, limit: float | None = None) -> Patience:
        """A fresh allowance of time for an outage."""
        return Patience(self._retry_for if limit is None else limit)

    async def pause(self, patience: Patience, failure: Failure) -> None:
        """Wait before the next attempt. Raises the failure's error where none is due."""
        seconds = patience.pause(failure)
        if self._on_retry is not None:
            self._on_retry(failure.error, seconds)
        await self.network.sleep(seconds)


def read(response: httpx2.Response, model: type[Model]) -> Model:
    """The body of an answer. Raises PenstockError when something else answered."""
    try:
        return model.model_validate_json(response.content)
    except ValidationError:
        raise PenstockError(
            f"{response.url.host}:{response.url.port} is no Penstock service of this version: "
            f"its answer to {response.request.method} {response.url.path} is not understood."
        ) from None
