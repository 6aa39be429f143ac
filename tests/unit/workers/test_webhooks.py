"""When an event is sent again, and what an answer means."""

from __future__ import annotations

import pytest

from storage.deliveries import PATIENCE
from workers.egress import Answer
from workers.webhooks import FIRST_DELAY, JITTER, MAX_DELAY, delay_after, judge


def test_attempts_are_spread_over_three_days() -> None:
    delays = [delay_after(attempt) for attempt in range(1, 60)]
    within = next(n for n in range(60) if sum(delays[: n + 1]) > PATIENCE)

    assert FIRST_DELAY * (1 - JITTER) <= delays[0] <= FIRST_DELAY * (1 + JITTER)
    assert max(delays) <= MAX_DELAY * (1 + JITTER)
    assert 15 <= within <= 25
    assert sum(delays[:within]) > PATIENCE - 2 * MAX_DELAY


def test_no_two_receivers_that_failed_together_are_tried_together() -> None:
    assert len({delay_after(5) for _ in range(50)}) == 50


@pytest.mark.parametrize("status", [200, 201, 202, 204, 299])
def test_any_2xx_is_a_delivery(status: int) -> None:
    assert judge(Answer(status), 7).delivered


@pytest.mark.parametrize("status", [301, 302, 307, 308, 400, 401, 404, 500, 502])
def test_any_other_answer_is_followed_by_another_attempt(status: int) -> None:
    attempt = judge(Answer(status, retry_after=60), 7)

    assert (attempt.delivered, attempt.final) == (False, False)
    assert (attempt.delay, attempt.pause) == (7, 0)
    assert str(status) in str(attempt.error)


def test_a_receiver_that_is_gone_is_left_alone() -> None:
    assert judge(Answer(410), 7).final


@pytest.mark.parametrize("status", [429, 503])
def test_who_asks_to_be_left_alone_for_a_time_is_within_bounds(status: int) -> None:
    asked = {None: 7.0, 2.0: 7.0, 60.0: 60.0, 1e9: MAX_DELAY}

    assert {a: judge(Answer(status, a), 7.0).delay for a in asked} == asked
    assert judge(Answer(status, 60.0), 7.0).pause == 60.0
