"""One POST to a receiver that nobody has to trust: to an address that was looked at, over a socket
opened here, within a time for everything, with nothing read but the head of the answer.

Follows no redirect, asks no proxy, keeps no connection. Knows nothing of webhooks or storage.
"""

from __future__ import annotations

import datetime as dt
import ipaddress
import queue
import re
import socket
import ssl
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import closing, suppress
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Final

from penstock.errors import PenstockError
from workers.addresses import Address, Policy, Target

MAX_HEAD: Final = 16_384  # bytes of an answer's status line and headers
MAX_HEADS: Final = 5  # those before the answer say only that it is to come
MAX_ADDRESSES: Final = 4  # of a name that are tried
STATUS: Final = re.compile(rb"HTTP/1\.[01] ([1-5][0-9][0-9])(?: |\r|\n|$)")
RETRY_AFTER: Final = re.compile(rb"(?im)^retry-after:[ \t]*([^\r\n]{1,64})")

#: Host and port to addresses. Raises OSError.
Resolve = Callable[[str, int], list[Address]]


class NotSent(PenstockError):
    """There was no answer; the message says why, without the URL."""

    code = "not_sent"
    retryable = True


@dataclass(frozen=True, slots=True)
class Answer:
    """`retry_after` in seconds, where the receiver said it."""

    status: int
    retry_after: float | None = None


class _Deadline:
    """What is left of the time for everything. Raises TimeoutError when it is over."""

    def __init__(self, seconds: float) -> None:
        self._end = time.monotonic() + seconds

    def left(self) -> float:
        seconds = self._end - time.monotonic()
        if seconds <= 0:
            raise TimeoutError
        return seconds


class Egress:
    """Thread-safe; each call has a connection of its own."""

    def __init__(
        self,
        policy: Policy,
        *,
        timeout: float,
        tls: ssl.SSLContext | None = None,
        resolve: Resolve | None = None,
    ) -> None:
        self._policy = policy
        self._timeout = timeout
        self._tls = tls or ssl.create_default_context()
        self._resolve = resolve or system_resolve

    def post(self, url: str, headers: Mapping[str, str], body: bytes) -> Answer:
        """Blocks for `timeout` seconds at most. Raises `NotSent`, and `InvalidRequest` for a URL
        that nothing is sent to."""
        target = self._policy.parse(url)
        deadline = _Deadline(self._timeout)
        try:
            addresses = self._look_up(target, deadline)
            with closing(self._open(target, addresses, deadline)) as connection:
                connection.settimeout(deadline.left())
                connection.sendall(_render(target, headers, body))
                return _read_answer(connection, deadline)
        except TimeoutError:
            raise NotSent(f"No answer came within {self._timeout:g} s.") from None
        except ssl.SSLCertVerificationError:
            raise NotSent("The receiver's certificate is not valid for its name.") from None
        except ssl.SSLError:
            raise NotSent("The receiver does not speak TLS as it should.") from None
        except OSError as error:
            reason = error.strerror or type(error).__name__
            raise NotSent(f"The connection failed: {reason}.") from None

    def _look_up(self, target: Target, deadline: _Deadline) -> list[Address]:
        """The addresses of the host, asked for once. One that is not public condemns all."""
        found = self._ask_resolver(target, deadline.left())
        if not all(self._policy.allows(address) for address in found):
            raise NotSent("The host has an address that is not public.")
        return found[:MAX_ADDRESSES]

    def _ask_resolver(self, target: Target, seconds: float) -> list[Address]:
        """In a thread of its own: nothing else ends a resolver that hangs."""
        answers: queue.SimpleQueue[list[Address]] = queue.SimpleQueue()

        def ask() -> None:
            with suppress(OSError, UnicodeError, ValueError):
                answers.put(self._resolve(target.host, target.port))
                return
            answers.put([])

        threading.Thread(target=ask, name="resolve", daemon=True).start()
        try:
            found = answers.get(timeout=seconds)
        except queue.Empty:
            raise TimeoutError from None
        if not found:
            raise NotSent("The host is not known.")
        return found

    def _open(self, target: Target, addresses: list[Address], deadline: _Deadline) -> socket.socket:
        connection = _connect(addresses, target.port, deadline)
        if target.scheme == "http":
            return connection
        try:
            connection = self._tls.wrap_socket(
                connection, server_hostname=target.host, do_handshake_on_connect=False
            )
            connection.settimeout(deadline.left())
            connection.do_handshake()
        except BaseException:
            connection.close()
            raise
        return connection


def system_resolve(host: str, port: int) -> list[Address]:
    """Every address that the machine's resolver has for a host, each once, in its order."""
    infos = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    found = (ipaddress.ip_address(str(info[4][0]).partition("%")[0]) for info in infos)
    return list(dict.fromkeys(found))


def _connect(addresses: list[Address], port: int, deadline: _Deadline) -> socket.socket:
    """To the first address that takes it, each with its share of the time."""
    for number, address in enumerate(addresses, start=1):
        share = deadline.left() / (len(addresses) - number + 1)
        try:
            return socket.create_connection((str(address), port), timeout=share)
        except OSError:
            if number == len(addresses):
                raise
    raise TimeoutError  # there is one address or more


def _render(target: Target, headers: Mapping[str, str], body: bytes) -> bytes:
    lines = [
        f"POST {target.path} HTTP/1.1",
        f"Host: {target.authority}",
        *(f"{name}: {value}" for name, value in headers.items()),
        f"Content-Length: {len(body)}",
        "Connection: close",
    ]
    return "\r\n".join([*lines, "", ""]).encode("ascii") + body


def _read_answer(connection: socket.socket, deadline: _Deadline) -> Answer:
    """Status and Retry-After; what else the receiver says is not read."""
    rest = b""
    for _ in range(MAX_HEADS):
        head, rest = _read_head(connection, rest, deadline)
        match = STATUS.match(head)
        if match is None:
            raise NotSent("The receiver does not answer in HTTP/1.1.")
        status = int(match[1])
        if status >= 200:
            return Answer(status, _retry_after(head))
    raise NotSent("The receiver does not come to its answer.")


def _read_head(connection: socket.socket, data: bytes, deadline: _Deadline) -> tuple[bytes, bytes]:
    while b"\r\n\r\n" not in data:
        if len(data) > MAX_HEAD:
            raise NotSent("The head of the answer is too long.")
        connection.settimeout(deadline.left())
        piece = connection.recv(4_096)
        if not piece:
            raise NotSent("The receiver closed the connection without an answer.")
        data += piece
    head, _, rest = data.partition(b"\r\n\r\n")
    return head, rest


def _retry_after(head: bytes) -> float | None:
    match = RETRY_AFTER.search(head)
    if match is None:
        return None
    text = match[1].decode("latin-1").strip()
    if text.isdecimal():
        return float(text)
    try:
        when = parsedate_to_datetime(text)
    except (ValueError, TypeError, OverflowError):
        return None
    if when.tzinfo is None:
        when = when.replace(tzinfo=dt.UTC)
    return max(0.0, (when - dt.datetime.now(dt.UTC)).total_seconds())
