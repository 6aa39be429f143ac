"""When a run stops: by the bound of an interval."""

from __future__ import annotations

import random

import pytest

from penstock.annotation.records import Live
from penstock.annotation.task.stop import StopRule
from penstock.errors import InvalidRequest


def live(
    *, done: int = 100, failed: int = 0, review: int = 0, gold: int = 0, right: int = 0
) -> Live:
    return Live(
        total=1000,
        done=2 * done,
        judged=done,
        failed=failed,
        review=review,
        gold=gold,
        right=right,
    )


@pytest.mark.parametrize(
    ("text", "seen", "stops"),
    [
        ("accuracy < 0.8", live(gold=100, right=75), False),  # 0.60 to 0.87
        ("accuracy < 0.8", live(gold=1000, right=750), True),  # 0.70 to 0.80
        ("accuracy < 0.8", live(gold=3, right=0), False),
        ("accuracy < 0.8", live(), False),
        ("accuracy >= 0.9", live(gold=1000, right=950), True),
        ("failed > 5%", live(failed=12), False),
        ("failed > 5%", live(failed=18), True),
        ("accuracy<.8 or failed > 0.05", live(failed=18), True),
        ("review <= 10 %", live(done=1000, review=50), True),
        ("review <= 10 %", live(done=1000, review=95), False),
    ],
)
def test_the_interval_s_bound_decides_not_the_point(text: str, seen: Live, stops: bool) -> None:
    assert (StopRule.parse(text).says_stop(seen) is not None) is stops


def test_the_reason_has_the_figures() -> None:
    said = StopRule.parse("accuracy < 0.8").says_stop(live(gold=1000, right=750))

    assert said == (
        "Stopped, since accuracy < 0.8: accuracy on gold rows 750 of 1,000, "
        "between 69.9% and 79.7% (95 %, at every look)."
    )


def test_a_run_that_is_looked_at_after_every_row_does_not_stop_by_chance() -> None:
    rule, chance = StopRule.parse("accuracy < 0.8"), random.Random(5)
    stopped = 0
    for _ in range(60):
        right = 0
        for gold in range(1, 301):
            right += chance.random() < 0.8
            if rule.says_stop(live(done=gold, gold=gold, right=right)) is not None:
                stopped += 1
                break

    assert stopped <= 0.05 * 60


def test_a_rule_on_accuracy_needs_gold() -> None:
    assert StopRule.parse("accuracy < 0.8 or failed > 0.1").needs_gold
    assert not StopRule.parse("failed > 0.1").needs_gold


@pytest.mark.parametrize(
    "text",
    [
        "",
        "accuracy",
        "accuracy < 80",
        "acuracy < 0.8",
        "accuracy < 0.8 or",
        "accuracy = 1",
        "x" * 999,
    ],
)
def test_what_is_no_rule_is_one_sentence(text: str) -> None:
    with pytest.raises(InvalidRequest, match="is no rule to stop by; write accuracy") as caught:
        StopRule.parse(text)

    assert caught.value.param == "stop_if"
