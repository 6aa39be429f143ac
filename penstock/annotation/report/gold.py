"""What the gold rows say: accuracy, each label's precision and recall, who is taken for whom."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from penstock.annotation.records import Interval
from penstock.annotation.report.counts import KEPT, Pairs
from penstock.annotation.trust.agreement import cohen_kappa
from penstock.annotation.trust.intervals import wilson

SHOWN = 20  # labels in a table
KINDS = 1_000  # of gold rows that are told apart; with more, there is no kappa
CONFUSED = 12  # that are set against each other: so many are as wide as a page


@dataclass(frozen=True, slots=True)
class LabelScore:
    """One label on the gold rows. `precision` is None where it was never answered, `recall` where
    no gold row has it."""

    name: str
    answered: int
    gold: int
    precision: Interval | None
    recall: Interval | None


@dataclass(frozen=True, slots=True)
class Confusion:
    """Gold rows by gold label (row) and answer (column); None stands for all other labels."""

    names: tuple[str | None, ...]
    counts: Mapping[tuple[str | None, str | None], int]

    def row(self, gold: str | None) -> list[int]:
        return [self.counts.get((gold, answer), 0) for answer in self.names]


class Kinds:
    """Counts gold rows by what gold and an answer say: label by label, whatever their order."""

    def __init__(self) -> None:
        self._counts: Counter[tuple[tuple[str, ...], tuple[str, ...]]] = Counter()
        self._whole = True

    def add(self, gold: Iterable[str], answer: Iterable[str]) -> None:
        kind = (tuple(sorted(set(gold))), tuple(sorted(set(answer))))
        if kind in self._counts or len(self._counts) < KINDS:
            self._counts[kind] += 1
        else:
            self._whole = False

    def kappa(self) -> Interval | None:
        if not self._whole:
            return None
        wanted = (gold for gold, _ in self._counts.elements())
        given = (answer for _, answer in self._counts.elements())
        return cohen_kappa(wanted, given)


class Gold:
    """Accumulates the gold rows that have an answer."""

    def __init__(self, known: Iterable[str] = (), *, several: bool = False) -> None:
        known = tuple(known)
        self._several = several
        self.rows = 0
        self.right = 0
        self._pairs = Pairs(known)
        self._kinds = Kinds()
        self._names = dict.fromkeys(known)
        self._hits: Counter[str] = Counter()
        self._answered: Counter[str] = Counter()
        self._gold: Counter[str] = Counter()

    def add(self, gold: tuple[str, ...], answer: tuple[str, ...], *, right: bool) -> None:
        self.rows += 1
        self.right += right
        if not self._several and len(gold) == len(answer) == 1:
            self._pairs.add(gold[0], answer[0])
        if gold or self._several:  # not of fields and texts
            self._kinds.add(gold, answer)
        for counts, names in (
            (self._gold, set(gold)),
            (self._answered, set(answer)),
            (self._hits, set(gold) & set(answer)),
        ):
            counts.update(name for name in names if self._keeps(name))

    @property
    def accuracy(self) -> Interval | None:
        return wilson(self.right, self.rows) if self.rows else None

    def kappa(self) -> Interval | None:
        """Cohen's, of the answers and gold; of several labels each set is a value."""
        return self._kinds.kappa()

    def scores(self) -> tuple[LabelScore, ...]:
        """The labels that the gold rows have most, by frequency."""
        seen = [name for name in self._names if self._gold[name] or self._answered[name]]
        ranked = sorted(seen, key=lambda name: (-self._gold[name], -self._answered[name]))
        return tuple(self._score(name) for name in ranked[:SHOWN])

    def confusion(self) -> Confusion | None:
        """None where there are not two labels, or several at once."""
        names = self._pairs.frequent(CONFUSED)
        if len(names) < 2:
            return None
        counts = self._pairs.folded(names)
        rest = any(None in pair for pair in counts)
        return Confusion((*names, None) if rest else names, counts)

    def _keeps(self, name: str) -> bool:
        if name not in self._names and len(self._names) < KEPT:
            self._names[name] = None
        return name in self._names

    def _score(self, name: str) -> LabelScore:
        hits, answered, gold = self._hits[name], self._answered[name], self._gold[name]
        return LabelScore(
            name,
            answered,
            gold,
            wilson(hits, answered) if answered else None,
            wilson(hits, gold) if gold else None,
        )
