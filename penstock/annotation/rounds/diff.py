"""What changed between two annotations of the same rows, and whether gold got better.

One pass over both; memory grows with the labels, not with the rows.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from penstock.annotation.records import Count, Interval, Kind
from penstock.annotation.rounds.annotated import Annotated
from penstock.annotation.rounds.cells import Answers, same
from penstock.annotation.rounds.compare import Pair, pairs
from penstock.annotation.rounds.mcnemar import exact_p
from penstock.annotation.rounds.rows import cell_text
from penstock.annotation.rounds.view import silent
from penstock.annotation.trust.intervals import wilson
from penstock.annotation.trust.right import missing, right
from penstock.errors import InvalidRequest

MOST_MOVES = 10_000  #: kinds of changes that are counted apart
FAILED = "(failed)"


@dataclass(frozen=True, slots=True)
class Change:
    """A row whose answer is another now."""

    place: str
    before: str
    after: str
    gold: str


@dataclass(slots=True)
class OnGold:
    """Rows with gold by who has them right."""

    rows: int = 0
    before: int = 0
    after: int = 0
    gained: int = 0  #: right only after
    lost: int = 0  #: right only before

    @property
    def intervals(self) -> tuple[Interval, Interval]:
        """Accuracy before and after, 95 %."""
        return wilson(self.before, self.rows), wilson(self.after, self.rows)

    @property
    def p(self) -> float:
        """McNemar's exact test, two-sided."""
        return exact_p(self.gained, self.lost)


@dataclass(slots=True)
class Difference:
    """`moves`: rows by (before, after). `columns`: rows by the field that changed."""

    rows: int = 0
    changed: int = 0
    moves: Counter[tuple[str, str]] = field(default_factory=Counter)
    columns: Counter[str] = field(default_factory=Counter)
    gold: OnGold = field(default_factory=OnGold)
    examples: list[Change] = field(default_factory=list)


def difference(
    a: Annotated, b: Annotated, gold: str | None, examples: int, count: Count = silent
) -> Difference:
    """From `a` to `b`; `gold` names a column of either, by default the task's own. Raises
    InvalidRequest for tables that cannot be compared."""
    if a.task.kind is not b.task.kind or a.task.several != b.task.several:
        raise InvalidRequest(
            f"{a.source.name} and {b.source.name} have answers of different kinds.", param="tables"
        )
    column = _gold_column(a, b, gold)
    before, after = Answers(a.task), Answers(b.task)
    found = Difference()
    for pair in pairs(a, b.source, count):
        one, other = before.value(pair.a.row), after.value(pair.b.row)
        found.rows += 1
        wanted = _gold(pair, column)
        if not same(one, other):
            _count(found, one, other, a.task.kind)
            if len(found.examples) < examples:
                change = Change(pair.b.place, shown(one), shown(other), cell_text(wanted))
                found.examples.append(change)
        if not missing(wanted):
            _judge(found.gold, right(one, wanted, a.task.kind), right(other, wanted, a.task.kind))
    return found


def shown(value: object) -> str:
    """An answer in one line."""
    return FAILED if value is None else cell_text(value)


def _count(found: Difference, one: object, other: object, kind: Kind) -> None:
    found.changed += 1
    if kind is Kind.LABELS:
        move = (shown(one), shown(other))
        if move in found.moves or len(found.moves) < MOST_MOVES:
            found.moves[move] += 1
    elif isinstance(one, dict) and isinstance(other, dict):
        names = {name for name in {*one, *other} if not same(one.get(name), other.get(name))}
        found.columns.update(names)


def _judge(gold: OnGold, before: bool, after: bool) -> None:
    gold.rows += 1
    gold.before += before
    gold.after += after
    gold.gained += after and not before
    gold.lost += before and not after


def _gold(pair: Pair, column: str | None) -> object:
    """A gold cell; the second table's first, since people may have answered in between."""
    if column is None:
        return None
    found = pair.b.row.get(column)
    return pair.a.row.get(column) if missing(found) else found


def _gold_column(a: Annotated, b: Annotated, named: str | None) -> str | None:
    column = named or b.task.gold or a.task.gold
    if column is None or column in a.columns or column in b.columns:
        return column
    raise InvalidRequest(
        f"Neither {a.source.name} nor {b.source.name} has a column {column!r}.", param="gold"
    )
