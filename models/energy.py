"""Joules that a device took, by its own counters: NVML's of a GPU, RAPL's of processors. What else
runs there is in them, too. Torch-free but for a GPU; reads what Linux tells in /sys.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple


class Counter(NamedTuple):
    """Joules so far, and at how many it begins anew."""

    joules: float
    turns_at: float


#: By name; none where nothing is told.
Counters = Mapping[str, Counter]


def counters_of(device: str) -> Counters:
    """Those of a device as torch names it."""
    if device == "cpu":
        return processors()
    if not device.startswith("cuda"):
        return {}
    from models.device import used_energy  # loads torch, which a model on a GPU has loaded anyway

    joules = used_energy(device)
    return {} if joules is None else {device: Counter(joules, math.inf)}


def processors(root: Path = Path("/")) -> Counters:
    """One for each processor's package. Where only root may read them: none."""
    found = {}
    for folder in sorted((root / "sys/class/powercap").glob("intel-rapl:*")):
        if folder.name.count(":") > 1:
            continue  # a part of a package
        try:
            micro = int((folder / "energy_uj").read_text())
            most = int((folder / "max_energy_range_uj").read_text())
        except (OSError, ValueError):
            continue
        found[folder.name] = Counter(micro / 1e6, most / 1e6)
    return found


class Energy:
    """Adds up what counters tell. One that begins anew has to be looked at in between: RAPL's do so
    within minutes at the earliest."""

    def __init__(self, read: Callable[[], Counters]) -> None:
        self._read = read
        self._last: Counters | None = None
        self._joules = 0.0

    def look(self) -> float | None:
        """Joules since the first look; None where the device does not tell."""
        now = self._read()
        for name, counter in now.items():
            before = (self._last or {}).get(name, counter).joules
            grown = counter.joules - before
            if grown < 0:
                grown = counter.joules if math.isinf(counter.turns_at) else grown + counter.turns_at
            self._joules += grown
        self._last = {**(self._last or {}), **now}
        return self._joules if self._last else None
