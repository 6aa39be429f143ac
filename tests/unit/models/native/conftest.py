"""The compiled library, where there is a compiler."""

from __future__ import annotations

import ctypes

import pytest

from models.native.library import library


@pytest.fixture(scope="session")
def native() -> ctypes.CDLL:
    loaded = library()
    if loaded is None:
        pytest.skip("there is no compiler here, or not one for this CPU")
    return loaded
