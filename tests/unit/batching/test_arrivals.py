"""Who goes on next on a packed runner."""

from __future__ import annotations

import time
from itertools import islice

from batching.arrivals import LOOK_AHEAD, SAMPLE, Arrivals
from batching.requests import EngineLane, EngineRequest
from batching.sequence import Sequence
from models.runner import SamplingParams

AGE_LIMIT = 20.0


def sequence(number: int, group: str | None = None, *, alone: bool = False) -> Sequence:
    request = EngineRequest(f"r{number}", "bulk", (number,), SamplingParams(), group=group)
    return Sequence(request, EngineLane.BULK, number, float(number), alone=alone)


def filled(*rows: Sequence) -> Arrivals:
    queue = Arrivals(AGE_LIMIT)
    for row in rows:
        queue.add(row)
    return queue


def order(queue: Arrivals, now: float = 0.0) -> list[int]:
    return [row.number for row in queue.candidates(now)]


def test_rows_go_on_in_the_order_of_arrival() -> None:
    queue = filled(*(sequence(number) for number in range(100)))
    assert order(queue) == list(range(LOOK_AHEAD))


def test_those_that_share_the_prefix_in_use_go_first() -> None:
    queue = filled(sequence(0, "a"), sequence(1, "b"), sequence(2, "a"), sequence(3, "b"))
    queue.shared("b")
    assert order(queue) == [1, 3, 0, 2]
    queue.remove("r1")
    queue.remove("r3")
    assert order(queue) == [0, 2]


def test_one_that_waited_too_long_is_not_overtaken() -> None:
    queue = filled(sequence(0, "a"), sequence(1, "b"))
    queue.shared("b")
    assert order(queue, AGE_LIMIT - 0.1) == [1, 0]
    assert order(queue, AGE_LIMIT) == [0]


def test_what_is_put_back_has_its_old_place_though_others_were_overtaken() -> None:
    rows = [sequence(number, "ab"[number % 2]) for number in range(6)]
    queue = filled(*rows)
    for number in (1, 2, 4):
        queue.remove(f"r{number}")
    queue.put_back([rows[4], rows[1], rows[2]])
    assert order(queue) == [0, 1, 2, 3, 4, 5]
    queue.shared("b")
    assert order(queue) == [1, 3, 5, 0, 2, 4]


def test_a_group_is_looked_at_once_in_a_while() -> None:
    queue = filled(*(sequence(number, "a") for number in range(100)))
    assert queue.look("a") == [(number,) for number in range(SAMPLE)]
    assert queue.look("a") == []
    for number in range(SAMPLE):
        queue.remove(f"r{number}")
    assert queue.look("a")[0] == (SAMPLE,)
    assert queue.look(None) == queue.look("b") == []


def test_those_that_must_be_alone_stand_in_a_line_of_their_own() -> None:
    queue = filled(sequence(0, alone=True), sequence(1))
    assert order(queue) == [1]
    assert queue.first_alone.number == 0
    assert queue.oldest == 0.0
    assert [row.number for row in queue.clear()] == [0, 1]
    assert not len(queue)


def test_the_next_row_costs_the_same_however_many_wait() -> None:
    def seconds(rows: int) -> float:
        queue = filled(*(sequence(number, f"g{number // 500}") for number in range(rows)))
        began = time.perf_counter()
        for _ in range(250):
            row = next(islice(queue.candidates(0.0), 1))
            queue.look(row.request.group)
            queue.remove(row.id)
        return time.perf_counter() - began

    few, many = min(seconds(256) for _ in range(5)), min(seconds(20_000) for _ in range(5))
    assert many < 5 * few
