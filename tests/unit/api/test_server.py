"""Sockets to listen on."""

from __future__ import annotations

import socket

import pytest

from api.server import bind
from penstock.errors import StackError


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
