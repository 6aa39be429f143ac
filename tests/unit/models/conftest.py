"""Tiny models are fastest on one thread."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator

import pytest
import torch

from models.native import linear
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


@pytest.fixture(params=["compiled", "torch"])
def either(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> ctypes.CDLL | None:
    """The compiled library, and none: layers by torch alone."""
    if request.param == "torch":
        monkeypatch.setattr(linear, "fits", lambda weight: False)  # panels are compiled
        return None
    loaded: ctypes.CDLL = request.getfixturevalue("native")
    return loaded
