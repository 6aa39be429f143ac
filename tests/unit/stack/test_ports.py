"""Ports are looked at before anything starts."""

from __future__ import annotations

import socket

import pytest

from penstock.errors import StackError
from penstock.stack.ports import claim_ports

HOST = "127.0.0.1"


def test_zero_gives_a_free_port_for_each() -> None:
    ports = claim_ports({"--port": (HOST, 0), "--flower-port": (HOST, 0)})

    assert len({*ports.values()} - {0}) == 2


def test_a_taken_port_names_its_option() -> None:
    with socket.socket() as other:
        other.bind((HOST, 0))
        other.listen()
        port = other.getsockname()[1]

        with pytest.raises(StackError, match=f"Port {port} on {HOST} .* with --flower-port"):
            claim_ports({"--port": (HOST, 0), "--flower-port": (HOST, port)})


def test_one_port_for_two_is_refused() -> None:
    free = claim_ports({"--port": (HOST, 0)})["--port"]

    with pytest.raises(StackError, match="--flower-port"):
        claim_ports({"--port": (HOST, free), "--flower-port": (HOST, free)})


def test_an_address_of_another_machine_is_a_sentence() -> None:
    with pytest.raises(StackError, match="cannot be used"):
        claim_ports({"--port": ("192.0.2.1", 0)})
