"""Tiny models are fastest on one thread."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator

import pytest
import torch

from models.native import attention, greatest, linear, refine, speedups
from models.native.library import library


@pytest.fixture(scope="package", autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def native() -> ctypes.CDLL:
    """The compiled library, where there is a compiler."""
    loaded = library()
    if loaded is None:
        pytest.skip("there is no compiler here, or not one for this CPU")
    return loaded


@pytest.fixture
def no_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    """All is left to torch."""
    for part in (attention, greatest, refine, speedups):
        monkeypatch.setattr(part, "library", lambda: None)
    monkeypatch.setattr(linear, "fits", lambda weight: False)  # panels are compiled


@pytest.fixture(params=["native", "no_compiler"])
def either(request: pytest.FixtureRequest) -> ctypes.CDLL | None:
    """The compiled library, and none."""
    loaded: ctypes.CDLL | None = request.getfixturevalue(request.param)
    return loaded
