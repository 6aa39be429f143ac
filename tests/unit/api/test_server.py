"""Sockets to listen on, and files for who comes."""

from __future__ import annotations

import resource
import socket

import pytest

from api.connections import allow_open_files
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


def test_the_limit_on_open_files_is_raised_as_far_as_it_goes_and_never_lowered() -> None:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (512, before[1]))
        allow_open_files(700)
        assert resource.getrlimit(resource.RLIMIT_NOFILE) == (700, before[1])
        allow_open_files(600)
        assert resource.getrlimit(resource.RLIMIT_NOFILE) == (700, before[1])
        allow_open_files(before[1] + 1)
        assert resource.getrlimit(resource.RLIMIT_NOFILE) == (before[1], before[1])
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
