"""The run that anyone can start, as one test: whatever is broken meanwhile, nothing is lost."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.chaos.verdict import RECOVERY

ROOT = Path(__file__).parents[2]
SECONDS = 120
LIMIT = SECONDS + 420.0  #: seconds: up, the storm, what is left after it, and down


@pytest.mark.slow
@pytest.mark.timeout(LIMIT + 60)
def test_two_minutes_of_everything_at_random_lose_and_repeat_nothing() -> None:
    command = [sys.executable, "-m", "tests.chaos", "--seconds", str(SECONDS)]
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=LIMIT, check=False
    )
    assert done.stdout, done.stderr
    verdict = json.loads(done.stdout.splitlines()[-1])
    # How fast it recovers is for the table: on a busy machine it says nothing of the code.
    wrong = [line for line in verdict["broken"] if not line.startswith(RECOVERY)]
    assert wrong == [], done.stderr
    assert (verdict["lost"], verdict["duplicated"]) == ("0", "0")
