"""Runs a plan: all contenders of a cell one after the other, round by round, so that a machine that
slows down slows all of them. A contender that fails is left out, with its reason."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks import machine
from benchmarks.plan import Cell, Entry
from benchmarks.protocol import Answer, save
from benchmarks.worker import Contender, ContenderFailed, Worker

WARM_UP = 64  #: the most rows that are run first and not counted; a quarter of a slow one's round


@dataclass(frozen=True, slots=True)
class Sample:
    """One run of one contender."""

    model: str
    dtype: str
    cell: str
    contender: str
    round: int
    answer: Answer


@dataclass(slots=True)
class Results:
    """All runs, who was left out and why, and what each said of itself."""

    samples: list[Sample] = field(default_factory=list)
    skipped: dict[str, str] = field(default_factory=dict)
    versions: dict[str, dict[str, str]] = field(default_factory=dict)


Say = Callable[[str], None]


@contextlib.contextmanager
def fleet(
    contenders: Sequence[Contender], results: Results, logs: Path
) -> Iterator[dict[str, Worker]]:
    """Start all, as many at a time as there are cores, for loading computes; end all, whatever
    happens."""
    started: list[Worker] = []
    workers: dict[str, Worker] = {}

    def load(contender: Contender) -> Worker:
        worker = Worker(contender, logs / f"{contender.name}.log")
        started.append(worker)
        worker.ready()
        return worker

    # Its threads stay until the end: a contender dies with the thread that started it.
    with ThreadPoolExecutor(machine.cores()) as threads:
        loading = {contender.name: threads.submit(load, contender) for contender in contenders}
        try:
            for name, loaded in loading.items():
                try:
                    workers[name] = loaded.result()
                except ContenderFailed as error:
                    results.skipped[name] = str(error)
                else:
                    results.versions[name] = workers[name].versions
            yield workers
        finally:
            threads.shutdown(wait=False, cancel_futures=True)
            for worker in started:
                worker.ask_to_end()
            for worker in started:
                worker.close()


def run(
    cells: Sequence[Cell],
    workers: dict[str, Worker],
    results: Results,
    place: tuple[str, str],
    folder: Path,
    say: Say,
) -> None:
    """`place`: the model's name and the dtype; `folder`: where workloads are put for contenders."""
    warm = set()
    for cell in cells:
        save(cell.workload, _path(folder, place, cell))
        for entry in cell.entries:
            if entry.kind != "express" and (entry.worker, entry.kind) not in warm:
                warm.add((entry.worker, entry.kind))
                _measure(entry, cell, workers, results, place, folder, number=None)
    most = max((entry.rounds for cell in cells for entry in cell.entries), default=0)
    for number in range(most):
        for cell in cells:
            # Another one begins in each round: the first runs on a cooler machine.
            turn = number % len(cell.entries)
            for entry in (*cell.entries[turn:], *cell.entries[:turn]):
                if number < entry.rounds:
                    sample = _measure(entry, cell, workers, results, place, folder, number)
                    if sample is not None:
                        say(_line(sample))


def _measure(
    entry: Entry,
    cell: Cell,
    workers: dict[str, Worker],
    results: Results,
    place: tuple[str, str],
    folder: Path,
    number: int | None,
) -> Sample | None:
    """Round `number` of an entry; None warms up and is forgotten."""
    worker = workers.get(entry.worker)
    if worker is None:
        return None
    path = _path(folder, place, cell)
    warm_up = min(WARM_UP, max(1, entry.rows // 4))
    start, rows = (0, warm_up) if number is None else (number * entry.rows, entry.rows)
    try:
        answer = worker.run(entry.kind, path, start, rows, entry.settings)
    except ContenderFailed as error:
        results.skipped[f"{entry.worker} ({place[0]}, {place[1]}, {cell.name})"] = str(error)
        workers.pop(entry.worker).close()
        return None
    if number is None:
        return None
    sample = Sample(*place, cell.name, entry.contender, number, answer)
    results.samples.append(sample)
    return sample


def _path(folder: Path, place: tuple[str, str], cell: Cell) -> Path:
    return folder / place[0] / f"{cell.workload.name}.json"


def _line(sample: Sample) -> str:
    answer = sample.answer
    rate = f"{answer.tokens / answer.seconds:,.0f} tok/s" if answer.tokens else ""
    return (
        f"{sample.model} {sample.dtype} {sample.cell} #{sample.round + 1} {sample.contender}:"
        f" {answer.seconds:.2f} s, {answer.rows / answer.seconds:,.1f} rows/s {rate}"
    )
