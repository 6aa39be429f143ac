"""Files of a test."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

#: Writes a file of the test's folder.
Write = Callable[[str, str | bytes], Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def put(name: str, content: str | bytes) -> Path:
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return put
