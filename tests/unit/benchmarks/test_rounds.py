"""Contenders as real processes: asked in turn, left out when they fail."""

from __future__ import annotations

import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest

from benchmarks.plan import Cell, Entry
from benchmarks.protocol import Job, Workload
from benchmarks.rounds import Results, fleet, run
from benchmarks.worker import Contender

MODULE = "tests.unit.benchmarks.scripted_contender"
PLACE = ("a-model", "float32")
WORKLOAD = Workload("three", tuple(Job((1,) * n, n) for n in (1, 2, 3)))


def contender(name: str, **options: Any) -> Contender:
    return Contender(name, MODULE, Path(sys.executable), {"name": name, **options})


def entry(name: str, kind: str = "generate", rows: int = 3, rounds: int = 2) -> Entry:
    return Entry(name, name, kind, rows, rounds, {"seconds": 2.0})


@pytest.fixture
def results() -> Results:
    return Results()


def measure(
    results: Results, folder: Path, contenders: list[Contender], *entries: Entry
) -> list[str]:
    said: list[str] = []
    with fleet(contenders, results, folder / "logs") as workers:
        run([Cell("mixed", WORKLOAD, entries)], workers, results, PLACE, folder, said.append)
    return said


def test_rounds_are_interleaved_and_each_begins_with_another(
    results: Results, tmp_path: Path
) -> None:
    measure(results, tmp_path, [contender("a"), contender("b")], entry("a"), entry("b"))
    order = [(sample.round, sample.contender) for sample in results.samples]
    assert order == [(0, "a"), (0, "b"), (1, "b"), (1, "a")]


def test_what_a_library_prints_is_no_answer_and_warm_up_is_not_counted(
    results: Results, tmp_path: Path
) -> None:
    said = measure(results, tmp_path, [contender("a")], entry("a", rounds=1))
    assert [(s.answer.rows, s.answer.tokens) for s in results.samples] == [(3, 6)]
    assert len(said) == 1
    assert results.versions == {"a": {"scripted": "1"}}


def test_a_slow_contender_gets_another_part_each_round(results: Results, tmp_path: Path) -> None:
    measure(results, tmp_path, [contender("a")], entry("a", rows=2))
    assert [sample.answer.picks for sample in results.samples] == [(1, 2), (3, 1)]


def test_no_more_are_loaded_at_once_than_there_are_cores(
    results: Results, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("benchmarks.machine.cores", lambda: 1)
    notes = tmp_path / "notes"
    both = [contender(name, notes=str(notes)) for name in ("a", "b")]
    with fleet(both, results, tmp_path / "logs") as workers:
        assert list(workers) == ["a", "b"]
    assert notes.read_text().split("\n") == ["a begins", "a ends", "b begins", "b ends", ""]


def test_who_cannot_be_loaded_is_left_out_with_its_reason(results: Results, tmp_path: Path) -> None:
    both = [contender("a", broken=True), contender("b")]
    measure(results, tmp_path, both, entry("a"), entry("b"))
    assert {sample.contender for sample in results.samples} == {"b"}
    assert "no such model" in results.skipped["a"]


def test_who_fails_on_the_way_is_left_out_with_its_reason(results: Results, tmp_path: Path) -> None:
    both = [contender("a"), contender("b")]
    measure(results, tmp_path, both, entry("a", kind="fail"), entry("b"))
    assert {sample.contender for sample in results.samples} == {"b"}
    assert list(results.skipped.values()) == ["RuntimeError: out of luck"]


def _command(process: psutil.Process) -> str:
    with suppress(psutil.Error):  # one of an earlier test that nobody has asked for its status
        return " ".join(process.cmdline())
    return ""


def test_who_dies_between_rounds_is_left_out_and_the_others_go_on(
    results: Results, tmp_path: Path
) -> None:
    both = [contender("a"), contender("b")]
    with fleet(both, results, tmp_path / "logs") as workers:
        entries = (entry("a", rounds=1), entry("b", rounds=1))
        cells = [Cell(name, WORKLOAD, entries) for name in ("mixed", "tail")]
        killed = next(p for p in psutil.Process().children() if '"a"' in _command(p))
        killed.kill()
        killed.wait(10)
        run(cells, workers, results, PLACE, tmp_path, lambda line: None)
    assert [(s.cell, s.contender) for s in results.samples] == [("mixed", "b"), ("tail", "b")]
    assert list(results.skipped) == ["a (a-model, float32, mixed)"]
