"""When a run should stop: `accuracy < 0.8 or failed > 5%`. A bound of the interval decides, not the
point, and of one that holds at every look: chance alone stops nothing. Knows no run."""

from __future__ import annotations

import re
from dataclasses import dataclass

from penstock.annotation.records import Interval, Live
from penstock.annotation.trust.intervals import anytime
from penstock.errors import InvalidRequest

FEWEST = 10  #: rows that a share is judged by; of fewer the first look would decide
_CLAUSE = re.compile(
    r"\s*(accuracy|failed|review)\s*(<=|>=|<|>)\s*(\d+(?:\.\d*)?|\.\d+)\s*(%?)\s*", re.ASCII
)
_CALLED = {"accuracy": "accuracy on gold rows", "failed": "rows failed", "review": "for review"}
MOST_CHARS = 200


@dataclass(frozen=True, slots=True)
class Clause:
    """One comparison of a share with a bound."""

    name: str
    sign: str
    bound: float

    def met(self, share: Interval) -> bool:
        """The whole interval is beyond the bound."""
        match self.sign:
            case "<":
                return share.high < self.bound
            case "<=":
                return share.high <= self.bound
            case ">":
                return share.low > self.bound
            case _:
                return share.low >= self.bound


@dataclass(frozen=True, slots=True)
class StopRule:
    """Any of the clauses stops the run."""

    text: str
    clauses: tuple[Clause, ...]

    @classmethod
    def parse(cls, text: str) -> StopRule:
        """Raises InvalidRequest for what is no rule."""
        parts = re.split(r"\bor\b", text) if len(text) <= MOST_CHARS else [""]
        found = [_CLAUSE.fullmatch(part) for part in parts]
        clauses = [_clause(match) for match in found if match is not None]
        if len(clauses) < len(parts) or any(not 0 <= each.bound <= 1 for each in clauses):
            raise InvalidRequest(
                f"{text[:MOST_CHARS]!r} is no rule to stop by; write accuracy, failed or review, a "
                "sign and a share, such as: accuracy < 0.8 or failed > 5%.",
                param="stop_if",
            )
        return cls(text, tuple(clauses))

    @property
    def needs_gold(self) -> bool:
        """It can stop nothing where no row has a gold answer."""
        return any(clause.name == "accuracy" for clause in self.clauses)

    @property
    def needs_verdicts(self) -> bool:
        """It goes by what all voters say together."""
        return any(clause.name != "accuracy" for clause in self.clauses)

    def says_stop(self, live: Live) -> str | None:
        """Why to stop now, as a sentence; None to go on."""
        for clause in self.clauses:
            count, of = _counted(clause.name, live)
            share = anytime(count, of)
            if of >= FEWEST and clause.met(share):
                return (
                    f"Stopped, since {clause.name} {clause.sign} {clause.bound:g}: "
                    f"{_CALLED[clause.name]} {count:,} of {of:,}, between {share.low:.1%} and "
                    f"{share.high:.1%} (95 %, at every look)."
                )
        return None


def _clause(match: re.Match[str]) -> Clause:
    name, sign, amount, percent = match.groups()
    return Clause(name, sign, float(amount) / (100 if percent else 1))


def _counted(name: str, live: Live) -> tuple[int, int]:
    if name == "accuracy":
        return live.right, live.gold
    return (live.failed if name == "failed" else live.review), live.judged
