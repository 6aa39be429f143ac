"""What voters said of the same rows, counted by kinds of rows. Knows labels, no table."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import combinations

from penstock.annotation.records import Interval
from penstock.annotation.report.gold import Kinds
from penstock.annotation.trust.agreement import cohen_kappa, krippendorff_alpha
from penstock.annotation.trust.intervals import wilson

KINDS = 50_000  # of rows that are told apart; what comes later is not counted

Said = tuple[str | None, ...]


@dataclass(frozen=True, slots=True)
class PairAgreement:
    """Two voters on the rows that both answered. `kappa` is None where they never vary."""

    one: str
    other: str
    rows: int
    same: Interval
    kappa: Interval | None


@dataclass(frozen=True, slots=True)
class VoterScore:
    """A voter on the gold rows that it answered."""

    name: str
    rows: int
    accuracy: Interval
    kappa: Interval | None


class Votes:
    """Accumulates what each voter said of each row. `rows`: those counted."""

    def __init__(self, voters: Iterable[str]) -> None:
        self.voters = tuple(voters)
        self._kinds: Counter[Said] = Counter()
        self._gold = {voter: [0, 0] for voter in self.voters}  # rows, right
        self._against_gold = {voter: Kinds() for voter in self.voters}

    @property
    def rows(self) -> int:
        return self._kinds.total()

    def add(self, votes: Mapping[str, str]) -> None:
        """The answer of each voter that gave one."""
        said = tuple(votes.get(voter) for voter in self.voters)
        if votes and (said in self._kinds or len(self._kinds) < KINDS):
            self._kinds[said] += 1

    def judge(
        self, voter: str, gold: Iterable[str] | None, said: Iterable[str], *, right: bool
    ) -> None:
        """Its answer on a gold row, both as their labels; None where gold is no label."""
        if gold is not None:
            self._against_gold[voter].add(gold, said)
        self._gold[voter][0] += 1
        self._gold[voter][1] += right

    def alpha(self) -> Interval | None:
        """Krippendorff's, of all voters."""
        return krippendorff_alpha(self._kinds.elements())

    def pairs(self) -> tuple[PairAgreement, ...]:
        found = (self._pair(one, other) for one, other in combinations(range(len(self.voters)), 2))
        return tuple(pair for pair in found if pair is not None)

    def scores(self) -> tuple[VoterScore, ...]:
        return tuple(
            VoterScore(name, rows, wilson(right, rows), self._against_gold[name].kappa())
            for name, (rows, right) in self._gold.items()
            if rows
        )

    def _pair(self, one: int, other: int) -> PairAgreement | None:
        both = {
            said: rows
            for said, rows in self._kinds.items()
            if said[one] is not None and said[other] is not None
        }
        rows = sum(both.values())
        if not rows:
            return None
        same = sum(count for said, count in both.items() if said[one] == said[other])
        kappa = cohen_kappa(_column(both, one), _column(both, other))
        return PairAgreement(self.voters[one], self.voters[other], rows, wilson(same, rows), kappa)


def _column(kinds: Mapping[Said, int], voter: int) -> Iterator[str | None]:
    return (said[voter] for said, rows in kinds.items() for _ in range(rows))
