"""What is measured: for each workload who runs it, how much of it, and how often. Measures nothing.

A contender that is slow gets fewer rows, other ones in each round; the results say how many."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from benchmarks import workloads
from benchmarks.models import BenchModel
from benchmarks.protocol import Workload

BATCH = {"batch": 8}
SORTED = {"batch": 32}
CONTINUOUS = {"batch": 32, "step_tokens": 512}


@dataclass(frozen=True, slots=True)
class Entry:
    """One contender in one cell. `worker` is the process that runs it, `rows` of a round."""

    contender: str
    worker: str
    kind: str
    rows: int
    rounds: int
    settings: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Cell:
    name: str
    workload: Workload
    entries: tuple[Entry, ...]


@dataclass(frozen=True, slots=True)
class Wanted:
    """Names of cells and of contenders; none means all."""

    cells: frozenset[str] = frozenset()
    contenders: frozenset[str] = frozenset()

    def of(self, plan: list[Cell]) -> list[Cell]:
        """Without cells that nobody is left to run."""
        kept = [cell for cell in plan if not self.cells or cell.name in self.cells]
        if self.contenders:
            kept = [
                replace(
                    cell, entries=tuple(e for e in cell.entries if e.contender in self.contenders)
                )
                for cell in kept
            ]
        return [cell for cell in kept if cell.entries]


@dataclass(frozen=True, slots=True)
class Size:
    """How thorough. `close_rounds`: of ours and vLLM, who are nearly as fast; `mixed`, `shared`,
    `tail`, `labels`: rows; `growth`: sizes in rows by model; `naive`: rows of one of its rounds,
    which together run all of `mixed`; `slow`: rows of a round for who else is slow; `chats` of a
    round; `service`: rows and rounds by model; `float32`: what of it is measured in that type,
    too; `without`: whom a cell leaves out, to save time."""

    models: tuple[str, ...]
    rounds: int
    close_rounds: int
    slow_rounds: int
    mixed: int
    shared: int
    tail: int
    labels: int
    per_label: int
    naive: int
    slow: int
    chats: int
    growth: Mapping[str, tuple[int, ...]]
    service: Mapping[str, tuple[int, int]]
    vllm: tuple[str, ...]
    vllm_cached: tuple[str, ...]
    also: tuple[str, ...]
    float32: Wanted = Wanted()
    without: Mapping[str, frozenset[str]] = field(default_factory=dict)


FULL = Size(
    models=("random-40m", "penstock-tiny"),
    rounds=3,
    close_rounds=5,
    slow_rounds=1,
    mixed=256,
    shared=256,
    tail=150,
    labels=128,
    per_label=6,
    naive=88,
    slow=32,
    chats=12,
    growth={"random-40m": (64, 256, 1024, 4096), "penstock-tiny": (64, 256, 1024, 4096)},
    service={"random-40m": (4096, 2), "penstock-tiny": (4096, 3)},
    vllm=("vllm-32", "vllm-64"),
    vllm_cached=("vllm-64-cached",),
    also=("sorted", "continuous", "llama"),
)
QUICK = Size(
    models=("random-40m",),
    rounds=1,
    close_rounds=1,
    slow_rounds=1,
    mixed=160,
    shared=64,
    tail=32,
    labels=48,
    per_label=2,
    naive=8,
    slow=8,
    chats=8,
    growth={"random-40m": (64, 128)},
    service={"random-40m": (128, 1)},
    vllm=("vllm-64-cached",),  # one engine for all: it takes most of a minute to start
    vllm_cached=("vllm-64-cached",),
    also=(),
    float32=Wanted(
        frozenset({"mixed", "shared", "labels"}),
        frozenset(
            {"naive", "vllm-64-cached", "packed", "packed-score", "packed-mask", "per-label"}
        ),
    ),
    without={
        "shared": frozenset({"torch"}),
        "tail": frozenset({"vllm-64-cached", "torch", "naive"}),
        "labels": frozenset({"torch-score", "torch-mask"}),
        "single": frozenset({"vllm-64-cached", "torch"}),
        "growth-64": frozenset({"naive"}),
    },
)


def cells(model: BenchModel, dtype: str, size: Size) -> list[Cell]:
    """In the order in which each round runs them."""
    vocabulary = model.vocabulary
    made = [
        Cell("mixed", workloads.mixed(size.mixed, vocabulary), _mixed(size)),
        Cell("shared", workloads.shared(size.shared, vocabulary), _shared(size)),
        Cell("tail", workloads.tail(size.tail, vocabulary), _tail(size)),
        Cell("labels", workloads.labels(size.labels, vocabulary, model.encode), _labels(size)),
        Cell("single", workloads.single(vocabulary), _single(size)),
        Cell("express", workloads.mixed(256, vocabulary), _express(size)),
    ]
    for count in size.growth.get(model.name, ()):
        if dtype == "bfloat16":
            made.append(Cell(f"growth-{count}", *_growth(count, model, size)))
    made = [_thinned(cell, size.without.get(cell.name, frozenset())) for cell in made]
    return size.float32.of(made) if dtype == "float32" else made


def _thinned(cell: Cell, without: frozenset[str]) -> Cell:
    kept = tuple(entry for entry in cell.entries if entry.contender not in without)
    return replace(cell, entries=kept)


def workers(cells: list[Cell]) -> tuple[str, ...]:
    """The processes that some cells need, each once."""
    return tuple(dict.fromkeys(entry.worker for cell in cells for entry in cell.entries))


def _entry(name: str, rows: int, rounds: int) -> Entry:
    """A contender that generates, as it is usually asked."""
    ways: dict[str, tuple[str, str, Mapping[str, Any]]] = {
        "naive": ("hf", "arrival", BATCH),
        "sorted": ("hf", "sorted", SORTED),
        "continuous": ("hf", "continuous", CONTINUOUS),
    }
    worker, kind, settings = ways.get(name, (name, "generate", {}))
    return Entry(name, worker, kind, rows, rounds, settings)


def _entries(names: tuple[str, ...], rows: int, rounds: int) -> list[Entry]:
    return [_entry(name, rows, rounds) for name in names]


def _slow(size: Size) -> list[Entry]:
    """Who waits for the longest row of a batch, or runs 32 rows at once."""
    others = [name for name in ("sorted", "continuous", "llama") if name in size.also]
    return [
        _entry("naive", size.naive, size.rounds),
        *(_entry(name, 2 * size.slow, size.slow_rounds) for name in others),
        _entry("padded", 2 * size.slow, size.slow_rounds),
    ]


def _mixed(size: Size) -> tuple[Entry, ...]:
    close = _entries((*size.vllm, "packed"), size.mixed, size.close_rounds)
    return (*close, _entry("torch", size.mixed, size.rounds), *_slow(size))


def _shared(size: Size) -> tuple[Entry, ...]:
    plain = tuple(name for name in size.vllm[-1:] if name not in size.vllm_cached)
    close = _entries((*size.vllm_cached, "packed"), size.shared, size.close_rounds)
    fast = [*close, _entry("torch", size.shared, size.rounds)]
    slow = _entries(("naive", "padded"), max(8, size.slow // 2), size.slow_rounds)
    if "continuous" in size.also:
        slow.append(_entry("continuous", 2 * size.slow, size.slow_rounds))
    llama = [_entry("llama", size.shared, size.slow_rounds)] if "llama" in size.also else []
    return (*fast, *_entries(plain, size.shared, size.slow_rounds), *llama, *slow)


def _tail(size: Size) -> tuple[Entry, ...]:
    fast = _entries((size.vllm[-1], "torch", "packed"), size.tail, size.rounds)
    # A part of the rows that holds its share of long ones.
    slow = _entries(("naive", "padded"), min(50, size.tail), size.slow_rounds)
    return (*fast, *slow)


def _labels(size: Size) -> tuple[Entry, ...]:
    kinds = (("packed", "score"), ("packed", "mask"), ("torch", "score"), ("torch", "mask"))
    ours = [Entry(f"{name}-{kind}", name, kind, size.labels, size.rounds) for name, kind in kinds]
    return (*ours, Entry("per-label", "hf", "per_label", size.per_label, size.slow_rounds))


def _single(size: Size) -> tuple[Entry, ...]:
    """As a chat: in the bulk lane the padded runner waits for others to fill its micro-batch."""
    rivals = _entries(("naive", size.vllm[-1]), 1, size.rounds + 2)
    lane = {"lane": "express"}
    ours = [
        Entry(name, name, "generate", 1, size.rounds + 2, lane)
        for name in ("padded", "torch", "packed")
    ]
    return (*rivals, *ours)


def _express(size: Size) -> tuple[Entry, ...]:
    return tuple(
        Entry(
            f"{name}-{'busy' if busy else 'idle'}",
            name,
            "express",
            256,
            size.rounds,
            {"chats": size.chats, "busy": busy},
        )
        for name in ("packed",)
        for busy in (False, True)
    )


def _growth(count: int, model: BenchModel, size: Size) -> tuple[Workload, tuple[Entry, ...]]:
    """The biggest take minutes, so they go once."""
    entries = _entries(("packed",), count, 1 if count > 256 else size.rounds)
    if count <= 256 and size.also:
        entries += _entries(size.vllm[-1:], count, 1)
    if count <= 64:
        entries += _entries(("naive",), count, 1)
    return workloads.mixed(count, model.vocabulary), tuple(entries)
