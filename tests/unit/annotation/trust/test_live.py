"""What is counted while answers come."""

from __future__ import annotations

from penstock.annotation.records import Kind, Reading, Verdict
from penstock.annotation.trust.intervals import wilson
from penstock.annotation.trust.live import Tally


def test_rows_are_counted_by_what_became_of_them() -> None:
    tally = Tally()
    tally.add(Verdict("a", prompt_tokens=5, completion_tokens=1), gold="a")
    tally.add(Verdict("a", needs_review=True, prompt_tokens=5), gold="b")
    tally.add(Verdict("b"), gold="")
    tally.add(Verdict(None, error="It failed.", needs_review=True), gold="a")
    tally.add(Verdict("b", votes=(Reading("b", reused=True), Reading("b"))))

    live = tally.live(total=9, seconds=2.5)

    assert (live.total, live.done, live.failed, live.review, live.reused) == (9, 5, 1, 2, 1)
    assert (live.prompt_tokens, live.completion_tokens, live.seconds) == (10, 1, 2.5)
    assert (live.gold, live.right) == (2, 1)
    assert live.accuracy == wilson(1, 2)


def test_without_gold_rows_there_is_no_accuracy() -> None:
    assert Tally().live(total=3, seconds=0).accuracy is None


def test_fields_are_right_as_a_whole() -> None:
    tally = Tally(Kind.FIELDS)
    tally.add(Verdict({"x": 1, "y": 2}), gold='{"x": 1, "y": 2}')
    tally.add(Verdict({"x": 1, "y": 3}), gold='{"x": 1, "y": 2}')
    assert tally.live(total=2, seconds=0).right == 1
