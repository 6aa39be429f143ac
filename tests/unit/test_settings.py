"""Settings that contradict each other are refused by name."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from penstock.settings import WorkerSettings


def test_a_heartbeat_must_come_before_the_fence_and_the_fence_before_the_lease() -> None:
    for values in ({"heartbeat": 50}, {"self_fence": 60}, {"lease": 5}):
        with pytest.raises(ValidationError, match="heartbeat has to be less than self_fence"):
            WorkerSettings(**values)
    assert WorkerSettings(lease=3, self_fence=2, heartbeat=0.5).lease == 3
