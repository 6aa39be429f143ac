"""What several voters make of a row."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest

from penstock.annotation.records import Kind, Reading, Verdict, Voter
from penstock.annotation.trust.confidence import Confidence
from penstock.annotation.trust.decide import ReviewRule, decide

RULE = ReviewRule()


def scored(a: float, tokens: int = 0) -> Reading:
    shares = {"a": a, "b": 1 - a}
    scores = {label: math.log(share) for label, share in shares.items()}
    value = "a" if a >= 0.5 else "b"
    return Reading(value, None, scores, shares, prompt_tokens=tokens, completion_tokens=1)


def verdict(
    readings: Sequence[Reading], review: ReviewRule = RULE, kind: Kind = Kind.LABELS
) -> Verdict:
    voters = [Voter(f"v{number}") for number in range(len(readings))]
    return decide(voters, readings, [Confidence()] * len(readings), review, kind)


def test_one_voter_decides_alone_and_agrees_with_nobody() -> None:
    found = verdict([scored(0.8, tokens=7)])

    assert found.value == "a"
    assert found.probability == pytest.approx(0.8)
    assert found.margin == pytest.approx(0.6)
    assert found.entropy == pytest.approx(0.5004, abs=1e-4)
    assert found.probabilities == pytest.approx({"a": 0.8, "b": 0.2})
    assert (found.agreement, found.needs_review, found.error) == (None, False, None)
    assert (found.prompt_tokens, found.completion_tokens) == (7, 1)


def test_a_temperature_is_applied_to_what_is_written() -> None:
    found = decide([Voter("v")], [scored(0.9)], [Confidence(2.0)], RULE, Kind.LABELS)
    assert found.probability == pytest.approx(0.75)
    assert found.votes[0].probabilities == pytest.approx({"a": 0.75, "b": 0.25})


def test_a_prior_can_make_another_label_the_best() -> None:
    confidence = Confidence(prior={"a": 0.8, "b": 0.2})
    found = decide([Voter("v")], [scored(0.6)], [confidence], RULE, Kind.LABELS)
    assert (found.value, found.votes[0].value) == ("b", "b")


def test_most_votes_win_and_disagreement_asks_for_review() -> None:
    found = verdict([scored(0.95), scored(0.4), scored(0.3)])

    assert found.value == "b"
    assert found.agreement == pytest.approx(2 / 3)
    assert found.probability == pytest.approx(0.45)
    assert found.margin == pytest.approx(-0.1)
    assert found.needs_review
    assert not verdict([scored(0.95), scored(0.4)], ReviewRule(disagreement=False)).needs_review


def test_a_tie_goes_to_the_likelier_then_to_the_first() -> None:
    assert verdict([scored(0.6), scored(0.1)]).value == "b"
    assert verdict([Reading("b"), Reading("a")]).value == "b"


def test_a_voter_who_failed_agrees_with_nobody_and_an_empty_cell_does_not_count() -> None:
    failed, empty = Reading(None, error="It failed."), Reading(None)

    assert verdict([scored(0.9), failed]).agreement == 0.5
    assert verdict([scored(0.9), failed]).error is None
    assert verdict([scored(0.9), empty]).agreement == 1
    assert not verdict([scored(0.9), empty]).needs_review


def test_a_row_without_an_answer_keeps_its_reason_and_needs_review() -> None:
    found = verdict([Reading(None, error="It is too long.", prompt_tokens=9000), Reading(None)])
    assert (found.value, found.error, found.needs_review) == (None, "It is too long.", True)
    assert found.prompt_tokens == 9000
    assert verdict([Reading(None)]).error == "No voter has an answer."


def test_rows_less_certain_than_the_threshold_need_review() -> None:
    rule = ReviewRule(below=0.7)
    assert verdict([scored(0.69)], rule).needs_review
    assert not verdict([scored(0.71)], rule).needs_review
    decoded = [Reading("a"), Reading("a"), Reading("b")]
    assert verdict(decoded, ReviewRule(below=0.7, disagreement=False)).needs_review
    assert not verdict(decoded, ReviewRule(below=0.6, disagreement=False)).needs_review


def test_of_several_labels_the_certainty_is_that_of_the_set() -> None:
    reading = Reading(["a", "c"], probabilities={"a": 0.9, "b": 0.2, "c": 0.6})

    found = verdict([reading])

    assert found.value == ["a", "c"]
    assert found.probability == pytest.approx(0.9 * 0.8 * 0.6)
    assert found.margin == pytest.approx(0.9 * 0.8 * (0.6 - 0.4))


def test_fields_are_voted_on_one_by_one() -> None:
    found = verdict(
        [Reading({"x": 1, "y": "p"}), Reading({"x": 1, "y": "q"}), Reading({"x": 2, "y": "p"})],
        kind=Kind.FIELDS,
    )
    assert found.value == {"x": 1, "y": "p"}
    assert found.agreement == pytest.approx(2 / 3)
    assert found.probability is None
