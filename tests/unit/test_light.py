"""What `import penstock` costs a program that uses the client."""

from __future__ import annotations

import subprocess
import sys

PROGRAM = """
import sys, penstock
assert not {"httpx2", "pydantic"} & set(sys.modules)
from penstock import AsyncClient, Client
from penstock import annotate, webhooks
print(*{"pandas", "polars", "pyarrow", "datasets", "zstandard", "numpy"} & set(sys.modules))
print(*{"rich", "typer", "torch", "fastapi", "sqlalchemy", "tqdm", "matplotlib"} & set(sys.modules))
"""


def test_the_client_loads_nothing_of_the_terminal_or_the_server() -> None:
    command = [sys.executable, "-c", PROGRAM]

    done = subprocess.run(command, check=False, capture_output=True, text=True)

    assert (done.returncode, done.stdout.strip()) == (0, ""), done.stderr
