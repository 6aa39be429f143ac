"""Receivers of webhooks on real sockets: good ones, and those that one has to be safe from."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

FLOOD = 10_000_000_000  #: bytes that a flooding receiver says it will answer


@dataclass(frozen=True)
class Got:
    """One request, as it came."""

    path: str
    headers: dict[str, str]  #: names in lower case
    body: bytes


#: What a receiver does with a connection once it has read the request.
Behave = Callable[["Receiver", socket.socket], None]


@dataclass
class Receiver:
    """Each connection has a thread. `behave` may be changed at any time."""

    listener: socket.socket
    host: str
    port: int
    behave: Behave
    tls: ssl.SSLContext | None = None
    got: list[Got] = field(default_factory=list)
    sent: int = 0  #: bytes of answers
    at_once: int = 0
    most_at_once: int = 0
    closing: threading.Event = field(default_factory=threading.Event)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def url(self) -> str:
        scheme = "https" if self.tls else "http"
        return f"{scheme}://{self.host}:{self.port}/hook?token=planted"

    def send(self, connection: socket.socket, data: bytes) -> None:
        connection.sendall(data)
        self.sent += len(data)

    def accept(self) -> None:
        with suppress(OSError):  # the listener was closed
            while True:
                connection, _ = self.listener.accept()
                threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with self._lock:
            self.at_once += 1
            self.most_at_once = max(self.at_once, self.most_at_once)
        with suppress(OSError), closing(connection):
            connection.settimeout(20)
            if self.tls is not None:
                connection = self.tls.wrap_socket(connection, server_side=True)
            with closing(connection):
                if (got := _read(connection)) is not None:
                    self.got.append(got)
                    self.behave(self, connection)
        with self._lock:
            self.at_once -= 1


def _read(connection: socket.socket) -> Got | None:
    with connection.makefile("rb") as stream:
        first = stream.readline().decode().split()
        headers = {}
        while line := stream.readline().strip().decode():
            name, _, value = line.partition(":")
            headers[name.lower()] = value.strip()
        if not first:
            return None
        return Got(first[1], headers, stream.read(int(headers.get("content-length", 0))))


def replies(status: int, body: bytes = b"", **headers: object) -> Behave:
    """An ordinary answer; `_` in a header's name stands for `-`."""
    lines = [f"HTTP/1.1 {status} Whatever", f"Content-Length: {len(body)}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    data = "\r\n".join([*lines, "", ""]).encode() + body
    return lambda receiver, connection: receiver.send(connection, data)


def hangs(receiver: Receiver, connection: socket.socket) -> None:
    """Takes the request and never answers."""
    receiver.closing.wait(60)


def drips(receiver: Receiver, connection: socket.socket) -> None:
    """A byte of a header every now and then: no single wait is long."""
    receiver.send(connection, b"HTTP/1.1 200 OK\r\nX-Drip: ")
    while not receiver.closing.wait(0.2):
        receiver.send(connection, b"x")


def floods(receiver: Receiver, connection: socket.socket) -> None:
    """Ten gigabytes of body, or what is taken of them."""
    receiver.send(connection, f"HTTP/1.1 200 OK\r\nContent-Length: {FLOOD}\r\n\r\n".encode())
    while receiver.sent < FLOOD:
        receiver.send(connection, bytes(65_536))


def endless_head(receiver: Receiver, connection: socket.socket) -> None:
    """Headers without an end."""
    receiver.send(connection, b"HTTP/1.1 200 OK\r\n")
    while receiver.sent < FLOOD:
        receiver.send(connection, b"X-More: " + b"x" * 8_192 + b"\r\n")


@contextmanager
def receiving(
    behave: Behave | None = None, *, host: str = "127.0.0.1", tls: ssl.SSLContext | None = None
) -> Iterator[Receiver]:
    """A receiver that listens until the block ends."""
    with closing(socket.create_server((host, 0), backlog=128)) as listener:
        port = int(listener.getsockname()[1])
        receiver = Receiver(listener, host, port, behave or replies(200), tls)
        threading.Thread(target=receiver.accept, daemon=True).start()
        try:
            yield receiver
        finally:
            receiver.closing.set()
            with suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)


@contextmanager
def raw(serve: Callable[[socket.socket, threading.Event], Any]) -> Iterator[int]:
    """The port of a server that speaks no HTTP; each connection is given to `serve`."""
    ending = threading.Event()
    with closing(socket.create_server(("127.0.0.1", 0))) as listener:

        def run() -> None:
            with suppress(OSError):
                while True:
                    connection, _ = listener.accept()
                    with suppress(OSError), closing(connection):
                        serve(connection, ending)

        threading.Thread(target=run, daemon=True).start()
        try:
            yield int(listener.getsockname()[1])
        finally:
            ending.set()
            with suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)
