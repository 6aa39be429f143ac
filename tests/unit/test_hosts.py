"""Which addresses only this machine can reach."""

from __future__ import annotations

import pytest

from penstock.hosts import is_loopback


@pytest.mark.parametrize("host", ["127.0.0.1", "127.9.9.9", "::1", "[::1]", "localhost"])
def test_loopback(host: str) -> None:
    assert is_loopback(host)


@pytest.mark.parametrize(
    "host", ["0.0.0.0", "::", "192.168.0.1", "", "example.com", "0x7f.1", "127.example.com"]
)
def test_anything_else_is_not(host: str) -> None:
    assert not is_loopback(host)
