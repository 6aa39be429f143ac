"""A run repeated from its manifest, and how many rows got the same answer.

Refuses another table and other weights; says what else is otherwise.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeGuard

from penstock.annotation.records import Sink, Source, Summary, Type, Watcher
from penstock.annotation.rounds import serving
from penstock.annotation.rounds.again import Computing
from penstock.annotation.rounds.annotated import Annotated
from penstock.annotation.rounds.cells import Answers, same, typed
from penstock.annotation.rounds.compare import pairs
from penstock.annotation.rounds.manifest import checksum, manifest_path
from penstock.annotation.rounds.review.files import fresh
from penstock.annotation.run.annotation import Annotation, Options
from penstock.annotation.run.ledger import ledger_path
from penstock.annotation.table.sink import sink_of
from penstock.annotation.table.source import source_of
from penstock.client import Client
from penstock.errors import InvalidRequest

SHOWN = 5  #: places of rows that differ
TOKENS = ("prompt_tokens", "completion_tokens")
CLOSE = (
    1e-5  #: a number that differs by less is the same: rows that share a step move its last bits
)


@dataclass(slots=True)
class Agreement:
    """Rows whose answers are the same in both: `agree`; `close` ones also in every other added
    cell but the tokens, numbers within `CLOSE`; `tokens`: those that took as many, whatever the
    answer. `farthest`: the greatest difference of a probability."""

    rows: int = 0
    agree: int = 0
    close: int = 0
    tokens: int = 0
    farthest: float = 0.0
    places: list[str] = field(default_factory=list)  #: the first that do not agree

    @property
    def share(self) -> float:
        return self.agree / self.rows if self.rows else 1.0


@dataclass(frozen=True, slots=True)
class Reproduction:
    """`first` is the run to repeat, `table` what it annotated, `output` gets the new answers."""

    first: Annotated
    table: Path
    output: Path

    def check(self) -> Source:
        """Raise InvalidRequest for what can be seen without a service."""
        fresh(self.output, manifest_path(self.output), param="output")
        told = self.first.manifest
        if told.round > 1 and told.parent is not None:
            raise InvalidRequest(
                f"{self.first.path} is a later round: only a part of its rows is of one run. "
                f"Reproduce {told.parent.name}, then rerun it.",
                param="manifest",
            )
        if told.counts.rows < told.source.rows:
            raise InvalidRequest(
                f"{self.first.path} has {told.counts.rows:,} of {told.source.rows:,} rows; "
                "finish its run, then reproduce it.",
                param="manifest",
            )
        if not self.table.exists():
            raise InvalidRequest(
                f"{self.table}, the table that was annotated, is not there; "
                "say by --table where it is.",
                param="table",
            )
        source = source_of(self.table)
        if (found := checksum(self.table)) != told.source.sha256:
            raise InvalidRequest(
                f"{self.table} is not the table that was annotated: its SHA-256 is "
                f"{found[:12]}…, was {told.source.sha256[:12]}….",
                param="table",
            )
        return source

    def run(self, client: Client, watcher: Watcher) -> tuple[Summary, Agreement]:
        """Run the task anew, nothing of it from the service's memory, and compare."""
        source = self.check()
        stats = client.stats()
        serving.check(self.first.manifest, stats)
        for sentence in serving.differences(self.first.manifest, stats):
            watcher.note(sentence)
        task = self.first.task

        def sink() -> Sink:
            return sink_of(self.output, source, task.columns)

        state = ledger_path(self.output)
        # Nobody picks up what is interrupted here, so its jobs end with it.
        options = Options(fresh=True, cancel=True)
        again = Annotation(source, task, Computing(client), watcher, state, options)
        summary = again.run(sink)
        return summary, agreement(self.first, source_of(self.output))


def agreement(first: Annotated, second: Source) -> Agreement:
    """How far two runs of one task agree."""
    answers = Answers(first.task)
    tokens = tuple(f"{first.task.prefix}{name}" for name in TOKENS)
    others = {name: type for name, type in answers.all.items() if name not in tokens}
    found = Agreement()
    for pair in pairs(first, second):
        a, b = pair.a.row, pair.b.row
        found.rows += 1
        agree = answers.error(a) == answers.error(b) and same(answers.value(a), answers.value(b))
        found.agree += agree
        if not agree and len(found.places) < SHOWN:
            found.places.append(pair.b.place)
        found.close += agree and all(
            close(typed(a.get(name), type), typed(b.get(name), type))
            for name, type in others.items()
        )
        found.tokens += all(
            same(typed(a.get(name), Type.INTEGER), typed(b.get(name), Type.INTEGER))
            for name in tokens
        )
        one, other = answers.probability(a), answers.probability(b)
        if one is not None and other is not None:
            found.farthest = max(found.farthest, abs(one - other))
    return found


def close(one: object, other: object) -> bool:
    """The same, or numbers within `CLOSE`; of objects part by part."""
    if _number(one) and _number(other):
        return abs(one - other) <= CLOSE
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(close(one[key], other[key]) for key in one)
    return same(one, other)


def _number(cell: object) -> TypeGuard[float]:
    return isinstance(cell, int | float) and not isinstance(cell, bool)
