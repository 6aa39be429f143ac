"""The voters of a run and how sure each is: from their readings to one verdict a row.

Knows no file and no service.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from penstock.annotation.records import Kind, Questions, Reading, Record, Verdict, Voter, Watcher
from penstock.annotation.run.scan import gold_text
from penstock.annotation.task.task import Task
from penstock.annotation.trust.confidence import Confidence, fit, prior_of
from penstock.annotation.trust.decide import ReviewRule, decide
from penstock.annotation.trust.right import labels_of, missing


@dataclass(frozen=True, slots=True)
class Judge:
    """Of each voter a confidence, in one order."""

    task: Task
    voters: Sequence[Voter]
    confidences: Sequence[Confidence]

    def verdict(self, record: Record, asked: Mapping[str, Reading]) -> Verdict:
        """`asked`: the readings of the voters that were asked; the others' are in the row."""
        readings = [
            asked[voter.name] if voter.column is None else self._told(record.row.get(voter.column))
            for voter in self.voters
        ]
        rule, kind = review_rule(self.task), self.task.kind
        return decide(self.voters, readings, self.confidences, rule, kind)

    def _told(self, cell: object) -> Reading:
        """What another annotator's column says; nothing where it is empty."""
        if missing(cell):
            return Reading(None)
        if self.task.kind is Kind.LABELS:
            return Reading(sorted(labels_of(cell)) if self.task.several else str(cell).strip())
        if self.task.kind is Kind.FIELDS and isinstance(cell, str):
            return Reading(json.loads(cell))
        return Reading(cell)


def review_rule(task: Task) -> ReviewRule:
    return ReviewRule(below=task.review.below, disagreement=task.review.disagreement)


def calibrated(
    task: Task,
    voter: Voter,
    on_gold: Mapping[int, Reading],
    gold: Mapping[int, object],
    priors: Sequence[Reading],
    watcher: Watcher,
) -> Confidence:
    """How sure a voter is, by what it said of gold rows and of prompts without content."""
    if task.kind is not Kind.LABELS or voter.questions is None:
        return Confidence()
    prior = prior_of(priors) if priors else None
    if not task.calibrate:
        return Confidence(prior=prior)
    pairs: Iterable[tuple[Reading, str]] = (
        (on_gold[row], gold_text(gold[row])) for row in sorted(on_gold)
    )
    found = fit(pairs, prior)
    if found.note is not None:
        watcher.note(f"{voter.name}: {found.note}")
    before, after = found.before, found.after
    if before is not None and after is not None and after.accuracy < before.accuracy:
        watcher.note(
            f"{voter.name}: With content_free {after.accuracy:.1%} of its answers to gold rows are "
            f"right, without it {before.accuracy:.1%}."
        )
    return found


def asked_of(voters: Sequence[Voter]) -> dict[str, Questions]:
    """The questions of those that are asked, by name."""
    return {voter.name: voter.questions for voter in voters if voter.questions is not None}
