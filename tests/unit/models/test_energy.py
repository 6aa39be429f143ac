"""Joules by a device's own counters, which begin anew now and then."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from models.energy import Counter, Counters, Energy, counters_of, processors


def package(root: Path, name: str, micro: str) -> None:
    folder = root / "sys/class/powercap" / name
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "energy_uj").write_text(micro)
    (folder / "max_energy_range_uj").write_text("262143000000\n")


def test_each_package_is_counted_and_its_parts_are_not(tmp_path: Path) -> None:
    package(tmp_path, "intel-rapl:0", "1500000\n")
    package(tmp_path, "intel-rapl:0:0", "700000\n")
    package(tmp_path, "intel-rapl:1", "no number")

    assert processors(tmp_path) == {"intel-rapl:0": Counter(1.5, 262_143.0)}
    assert processors(tmp_path / "nowhere") == {}
    assert counters_of("none") == {}


def test_what_was_taken_is_counted_from_the_first_look_on_and_over_a_new_beginning() -> None:
    told: list[Counters] = [
        {"a": Counter(90.0, 100.0), "gpu": Counter(7.0, math.inf)},
        {"a": Counter(95.0, 100.0), "gpu": Counter(8.0, math.inf)},
        {"a": Counter(5.0, 100.0)},  # turned over; the GPU does not answer
        {"a": Counter(5.0, 100.0), "gpu": Counter(2.0, math.inf)},  # its driver was loaded anew
    ]
    energy = Energy(iter(told).__next__)

    assert [energy.look() for _ in told] == pytest.approx([0.0, 6.0, 16.0, 18.0])


def test_a_device_that_does_not_tell_has_no_figure() -> None:
    energy = Energy(dict)

    assert (energy.look(), energy.look()) == (None, None)
