"""Which addresses only this machine can reach, and sockets."""

from __future__ import annotations

import socket

import pytest

from api.server import bind, is_loopback
from penstock.errors import StackError


@pytest.mark.parametrize("host", ["127.0.0.1", "127.9.9.9", "::1", "localhost"])
def test_loopback(host: str) -> None:
    assert is_loopback(host)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.0.1", "", "example.com", "0x7f.1"])
def test_anything_else_is_not(host: str) -> None:
    assert not is_loopback(host)


def test_answers_do_not_wait_for_the_clients_acknowledgement() -> None:
    with (
        bind("127.0.0.1", 0) as listener,
        socket.create_connection(listener.getsockname()),
        listener.accept()[0] as accepted,
    ):
        assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


def test_an_address_of_nobody_is_one_sentence() -> None:
    with pytest.raises(StackError, match=r"cannot listen on 203\.0\.113\.7:1"):
        bind("203.0.113.7", 1)
