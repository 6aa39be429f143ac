"""Every cell of the plan can be run by a contender that exists."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.contenders import TITLES, everyone
from benchmarks.models import BenchModel
from benchmarks.plan import FULL, QUICK, Size, Wanted, cells, workers


class Words(BenchModel):
    """A model that is not there; its tokens are as many as the words."""

    def encode(self, text: str) -> list[int]:
        return [len(word) for word in text.split()]


@pytest.mark.parametrize("size", [FULL, QUICK])
@pytest.mark.parametrize("name", ["random-40m", "penstock-tiny"])
def test_every_process_of_the_plan_can_be_started_and_every_row_has_a_title(
    size: Size, name: str
) -> None:
    plan = cells(Words(name, Path(), 4096), "bfloat16", size)
    names = workers(plan)
    made = everyone(names, Path(), "bfloat16", 2, "libtcmalloc.so", Path(".bench"))
    assert [one.name for one in made] == list(names)
    assert all("libtcmalloc.so" in one.environment["LD_PRELOAD"] for one in made)
    for cell in plan:
        if cell.name not in ("labels", "express"):
            assert {entry.contender for entry in cell.entries} <= set(TITLES)


def test_the_rounds_of_naive_together_run_every_row() -> None:
    plan = cells(Words("random-40m", Path(), 4096), "bfloat16", FULL)
    (mixed,) = Wanted(frozenset({"mixed"}), frozenset({"naive"})).of(plan)
    (naive,) = mixed.entries
    assert naive.rows * naive.rounds >= len(mixed.workload.jobs)


def test_torch_alone_runs_without_the_compiled_kernel() -> None:
    made = everyone(("torch", "packed"), Path(), "float32", 2, None, Path(".bench"))
    assert [one.environment["PENSTOCK_NATIVE"] for one in made] == ["0", "1"]
    assert all("LD_PRELOAD" not in one.environment for one in made)


def test_some_cells_and_some_contenders_can_be_asked_for() -> None:
    plan = cells(Words("random-40m", Path(), 4096), "bfloat16", FULL)
    wanted = Wanted(frozenset({"mixed", "single", "labels"}), frozenset({"naive", "packed"}))
    kept = wanted.of(plan)
    assert [cell.name for cell in kept] == ["mixed", "single"]
    assert all({e.contender for e in cell.entries} == set(wanted.contenders) for cell in kept)
    assert set(workers(kept)) == {"hf", "packed"}
    assert Wanted().of(plan) == plan
