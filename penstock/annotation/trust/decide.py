"""One verdict from what all voters said of a row. Knows no table and no service."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from penstock.annotation.records import Kind, Reading, Verdict, Voter
from penstock.annotation.trust.agreement import majority
from penstock.annotation.trust.certainty import certainty, choose
from penstock.annotation.trust.confidence import Confidence

NO_VOTE = "No voter has an answer."


@dataclass(frozen=True, slots=True)
class ReviewRule:
    """Which rows a human should see: less certain than `below`, or voters who disagree."""

    below: float | None = None
    disagreement: bool = True


def decide(
    voters: Sequence[Voter],
    readings: Sequence[Reading],
    confidences: Sequence[Confidence],
    review: ReviewRule,
    kind: Kind,
) -> Verdict:
    """Of each voter a reading and a confidence, in one order.

    The value is what most say; of a tie, what is likelier by the mean of all probabilities, then
    what was said first. Fields are voted on one by one; their agreement is that of the field with
    the least. A voter who failed agrees with nobody; one that was not asked (an empty cell of its
    column) does not count. A row without an answer needs review in any case.
    """
    votes = [_vote(*each) for each in zip(readings, confidences, strict=True)]
    cast = [vote for vote in votes if vote.value is not None]
    tokens = (sum(r.prompt_tokens for r in readings), sum(r.completion_tokens for r in readings))
    if not cast:
        reason = next((vote.error for vote in votes if vote.error), NO_VOTE)
        return Verdict(None, reason, None, None, None, None, None, True, votes, *tokens)
    shares = _pool(cast)
    value, most = _value(cast, shares, kind)
    asked = len(cast) + sum(vote.error is not None and vote.value is None for vote in votes)
    agreement = most / asked if len(voters) > 1 else None
    sure: tuple[float | None, float | None, float | None] = (None, None, None)
    if shares is not None:
        sure = certainty(value, shares)
    needs_review = _needs_review(sure[0], agreement, review)
    return Verdict(value, None, *sure, shares, agreement, needs_review, votes, *tokens)


def _vote(reading: Reading, confidence: Confidence) -> Reading:
    """The reading with its calibrated probabilities. A prior can make another label the best."""
    shares = confidence.probabilities(reading)
    if shares is None:
        return reading
    value = reading.value
    if confidence.prior is not None:
        value = choose(shares, isinstance(value, list | tuple))
    return replace(reading, value=value, probabilities=shares)


def _pool(votes: Sequence[Reading]) -> Mapping[str, float] | None:
    """The mean of the voters' probabilities, of those that have some."""
    found = [vote.probabilities for vote in votes if vote.probabilities is not None]
    if len(found) < 2:
        return found[0] if found else None
    return {label: sum(p.get(label, 0.0) for p in found) / len(found) for label in found[0]}


def _value(
    votes: Sequence[Reading], shares: Mapping[str, float] | None, kind: Kind
) -> tuple[object, int]:
    """What most say, and how many."""
    values = [vote.value for vote in votes]
    if kind is Kind.FIELDS and all(isinstance(value, Mapping) for value in values):
        return _fields([value for value in values if isinstance(value, Mapping)])
    best, most = majority(values)
    if len(best) > 1 and shares is not None:
        best.sort(key=lambda value: certainty(value, shares).probability, reverse=True)
    return best[0], most


def _fields(objects: Sequence[Mapping[str, object]]) -> tuple[dict[str, object], int]:
    value: dict[str, object] = {}
    least = len(objects)
    for name in dict.fromkeys(name for each in objects for name in each):
        best, most = majority([each.get(name) for each in objects])
        value[name] = best[0]
        least = min(least, most)
    return value, least


def _needs_review(probability: float | None, agreement: float | None, review: ReviewRule) -> bool:
    if review.disagreement and agreement is not None and agreement < 1:
        return True
    sure = agreement if probability is None else probability
    return review.below is not None and sure is not None and sure < review.below
