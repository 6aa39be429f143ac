"""A service on a real socket, and a client of it that does not wait long."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from penstock.client import Client
from tests.support.service import Service, listen, serving


@pytest.fixture
def service() -> Iterator[Service]:
    with serving(Service(), listen()) as running:
        yield running


@pytest.fixture
def client(service: Service) -> Iterator[Client]:
    with Client(service.url, "secret", retry_for=5) as opened:
        yield opened
