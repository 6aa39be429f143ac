"""Clients that send slowly, too much, or nothing; and what is logged of those who bring their key
in the address."""

from __future__ import annotations

import asyncio
import gzip
import logging
import selectors
import socket
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager, suppress

import httpx2
import pytest
import uvicorn
from fastapi import FastAPI, WebSocket, WebSocketDisconnect
from starlette.requests import Request
from websockets.sync.client import connect

from api import server
from api.body import BodyBudget, read_body
from api.connections import Connection, hide_queries
from api.errors import BodyTimeout
from tests.contract.support import check_shape

SOON = 1.0  # seconds


class Hasty(Connection):
    head_limit = SOON


@contextmanager
def serving(app: FastAPI) -> Iterator[tuple[str, int]]:
    """As `server.run` does, with less patience."""
    listener = server.bind("127.0.0.1", 0)
    running = uvicorn.Server(
        uvicorn.Config(app, http=Hasty, log_config=None, access_log=False, lifespan="off")
    )
    thread = threading.Thread(target=running.run, args=([listener],))
    thread.start()
    try:
        yield listener.getsockname()[:2]
    finally:
        running.should_exit = True
        thread.join()
        listener.close()


@pytest.fixture(scope="module")
def address() -> Iterator[tuple[str, int]]:
    app = FastAPI()

    @app.get("/")
    async def root() -> str:
        return "here"

    @app.websocket("/talk")
    async def talk(websocket: WebSocket) -> None:
        await websocket.accept()
        await websocket.send_text("hello")
        with suppress(WebSocketDisconnect):
            await websocket.receive_text()
            await websocket.send_text("bye")

    with serving(app) as address:
        yield address


@pytest.mark.parametrize("sent", [b"", b"GET / HT", b"GET / HTTP/1.1\r\nHost: x\r\nX-Slow: "])
def test_a_head_that_does_not_come_ends_the_connection(
    address: tuple[str, int], sent: bytes
) -> None:
    with socket.create_connection(address, timeout=10) as client:
        client.sendall(sent)

        assert client.recv(1_000) == b""


def test_a_head_that_drips_ends_the_connection_too_also_after_a_request(
    address: tuple[str, int],
) -> None:
    whole = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
    with socket.create_connection(address, timeout=10) as client:
        client.sendall(whole)
        received = b""
        while not received.endswith(b'"here"'):
            received += client.recv(1_000)
        client.settimeout(SOON / 6)
        with pytest.raises(ConnectionError):
            for _ in range(100):
                client.sendall(b"X")
                with pytest.raises(TimeoutError):
                    _receive(client)


def _receive(client: socket.socket) -> None:
    if client.recv(1) == b"":
        raise ConnectionError


def test_a_connection_that_is_kept_or_talks_has_all_the_time(address: tuple[str, int]) -> None:
    host, port = address
    with httpx2.Client() as client, connect(f"ws://{host}:{port}/talk") as socket_:
        first = client.get(f"http://{host}:{port}/")
        assert socket_.recv() == "hello"
        threading.Event().wait(2 * SOON)  # longer than a head may take
        second = client.get(f"http://{host}:{port}/")
        socket_.send("on")
        assert socket_.recv() == "bye"

    assert (first.status_code, second.status_code) == (200, 200)


def test_a_key_in_the_address_is_not_logged(
    address: tuple[str, int], caplog: pytest.LogCaptureFixture
) -> None:
    hide_queries()
    host, port = address
    with caplog.at_level(logging.INFO):
        with connect(f"ws://{host}:{port}/talk?access_token=psk_secret") as talking:
            assert talking.recv() == "hello"
        httpx2.get(f"http://{host}:{port}/?access_token=psk_secret")

    uvicorns = [record for record in caplog.records if record.name.startswith("uvicorn")]
    assert any("/talk" in record.getMessage() for record in uvicorns)
    assert not any("psk_secret" in record.getMessage() for record in uvicorns)


def test_a_flood_of_headers_is_refused_and_the_service_lives(live: str) -> None:
    host, port = live.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=10) as client:
        client.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\n")
        with pytest.raises(ConnectionError):
            for number in range(100_000):
                client.sendall(b"X-Flood-%d: %b\r\n" % (number, b"x" * 1_000))
    many = {f"X-{number}": "x" for number in range(500)}
    assert httpx2.get(f"{live}/healthz", headers=many).status_code == 200
    assert httpx2.get(f"{live}/healthz").status_code == 200


def test_a_bomb_is_not_unpacked(live: str) -> None:
    bomb = gzip.compress(b"0" * 10_000_000)
    headers = {"Content-Type": "application/json", "Content-Encoding": "gzip"}

    answer = httpx2.post(f"{live}/batch-generate", content=bomb, headers=headers)

    assert (answer.status_code, check_shape(answer)["param"]) == (415, "Content-Encoding")


@pytest.mark.parametrize(
    ("size", "pause", "comes"),
    [(1, 31.0, False), (1, 20.0, False), (1_000_000, 20.0, True), (1, 0.1, True)],
)
def test_a_body_has_to_come_at_a_pace(size: int, pause: float, comes: bool) -> None:
    """Ten pieces of a size, each after a pause in seconds, on a loop whose clock runs fast."""

    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(10):
            await asyncio.sleep(pause)
            yield b"x" * size

    class Sent(Request):
        def stream(self) -> AsyncIterator[bytes]:  # type: ignore[override]
            return pieces()

    request = Sent({"type": "http", "headers": [(b"content-type", b"application/json")]})
    with asyncio.Runner(loop_factory=FastLoop) as runner, BodyBudget(10**8).hold() as hold:
        if comes:
            assert len(runner.run(read_body(request, hold, 10**8))) == 10 * size
        else:
            with pytest.raises(BodyTimeout):
                runner.run(read_body(request, hold, 10**8))


SPEED = 250


class FastSelector(selectors.DefaultSelector):
    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        return super().select(None if timeout is None else timeout / SPEED)


class FastLoop(asyncio.SelectorEventLoop):
    """A second of which takes four milliseconds."""

    def __init__(self) -> None:
        super().__init__(FastSelector())

    def time(self) -> float:
        return super().time() * SPEED
