"""One stack on the fake model for all of these tests, and the command line beside it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from examples.stdlib.stack import CHECKOUT, RunningStack, running


@pytest.fixture(scope="package")
def stack() -> Iterator[RunningStack]:
    # In a folder that other accounts may pass through, as PostgreSQL must when we are root.
    folder = Path(tempfile.mkdtemp(prefix="penstock-test-"))
    folder.chmod(0o755)
    data = folder / "data"
    data.mkdir()
    try:
        with running(data, "fake") as found:
            yield found
    finally:
        shutil.rmtree(folder)


class Shell:
    """Runs `penstock …` and other programs of the checkout against the stack."""

    def __init__(self, url: str, folder: Path) -> None:
        self._environment = os.environ | {"PENSTOCK_URL": url, "PYTHONPATH": str(CHECKOUT)}
        self._folder = folder

    def start(
        self, module: str, *arguments: str | Path, **environment: str
    ) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", module, *map(str, arguments)],
            cwd=self._folder,
            env=self._environment | environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, module: str, *arguments: str | Path, typed: str = "") -> tuple[int, str, str]:
        """Exit status, output and errors."""
        process = self.start(module, *arguments)
        output, errors = process.communicate(typed, timeout=100)
        return process.returncode, output, errors


@pytest.fixture
def shell(stack: RunningStack, tmp_path: Path) -> Shell:
    return Shell(stack.api_url, tmp_path)
