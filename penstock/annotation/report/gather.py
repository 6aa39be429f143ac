"""All that a report says of a table's rows, gathered in one pass and in bounded memory.

Knows an annotated table, not how anything is shown.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from penstock.annotation.records import Count, Kind, Record, Row, Source
from penstock.annotation.report.cells import empty, names, parsed, text
from penstock.annotation.report.certainty import Certainty
from penstock.annotation.report.counts import Names
from penstock.annotation.report.fields import Field
from penstock.annotation.report.gold import Gold
from penstock.annotation.report.hardest import Hardest, doubt
from penstock.annotation.report.layout import Layout, Line
from penstock.annotation.report.votes import Votes
from penstock.annotation.trust.right import labels_of, missing, right, same

NOTE_EVERY = 10_000  # rows between two calls of a Count
REASON = 160  # characters of an error
VARYING = re.compile(r"""(?<=answer )(['"]).*\1(?= )|\d[\d,]*""", re.DOTALL)
#: Answers by their length in tokens: up to the first bound, beyond it up to the second, …
LENGTHS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1_024, 2_048, 4_096)


class Findings:
    """What was found so far. `open`: rows that have neither an answer nor an error yet."""

    def __init__(self, layout: Layout) -> None:
        self.layout = layout
        self.rows = self.done = self.failed = self.review = 0
        self.prompt_tokens = self.completion_tokens = 0
        self.labels = Names(layout.labels)
        self.lengths = [0] * (len(LENGTHS) + 1)
        self.gold = Gold(layout.labels, several=layout.several)
        self.certainty = Certainty()
        self.votes = Votes(layout.votes)
        self.fields = [Field(name, kind) for name, kind in layout.fields.items()]
        self.uncertain = Hardest()
        self.mistaken = Hardest()
        self.reasons = Names()

    @property
    def open(self) -> int:
        return self.rows - self.done - self.failed

    def add(self, record: Record) -> None:
        line = self.layout.line(record)
        self.rows += 1
        self.done += line.done
        self.failed += bool(line.error)
        self.review += line.review
        self.prompt_tokens += line.tokens[0]
        self.completion_tokens += line.tokens[1]
        if line.error:
            self.reasons.add(reason(line.error))
        elif line.done:
            self._answered(line)
        if self.layout.votes:
            self._voted(line.row)

    def _answered(self, line: Line) -> None:
        for label in line.labels or ():
            self.labels.add(label)
        if self.layout.fields:
            self._filled_in(line)
        if self.layout.kind is Kind.TEXT:
            longer = sum(line.tokens[1] > bound for bound in LENGTHS)
            self.lengths[longer] += 1
        if line.probability is not None:
            self.certainty.add(line.probability, line.right)
        if line.right is not None:
            self.gold.add(self._gold_names(line.row), line.labels or (), right=line.right)
        if (key := doubt(line)) is not None:
            self.uncertain.add(key, line, self.layout)
        if line.right is False:
            self.mistaken.add(line.probability or 0.0, line, self.layout)

    def _filled_in(self, line: Line) -> None:
        wanted = parsed(line.row.get(self.layout.gold or ""))
        for field, name in zip(self.fields, self.layout.fields, strict=True):
            field.add(line.row.get(name))
            if line.right is not None and isinstance(wanted, Mapping) and name in wanted:
                field.judge(right=same(self.layout.field(line.row, name), wanted[name]))

    def _gold_names(self, row: Row) -> tuple[str, ...]:
        gold = row.get(self.layout.gold or "")
        if self.layout.kind is not Kind.LABELS:
            return ()
        return tuple(sorted(labels_of(gold))) if self.layout.several else names(gold, several=False)

    def _voted(self, row: Row) -> None:
        gold = None if self.layout.gold is None else row.get(self.layout.gold)
        votes: dict[str, str] = {}
        for voter, column in self.layout.votes.items():
            cell = row.get(column)
            if empty(cell):
                continue
            said = names(cell, several=self.layout.several)
            votes[voter] = ", ".join(sorted(said))
            if not missing(gold):
                value = list(said) if self.layout.several else cell
                good = right(value, gold, self.layout.kind)
                wanted = self._gold_names(row) if self.layout.kind is Kind.LABELS else None
                self.votes.judge(voter, wanted, said, right=good)
        self.votes.add(votes)


def reason(error: str) -> str:
    """What rows that failed alike share: the sentence without its numbers and quoted answer."""
    return text(VARYING.sub("…", error), REASON)


def gather(source: Source, layout: Layout, count: Count = lambda rows: None) -> Findings:
    """Read the table once. `count` is told how many rows were read, now and then."""
    findings = Findings(layout)
    for record in source.read():
        findings.add(record)
        if findings.rows % NOTE_EVERY == 0:
            count(findings.rows)
    return findings
