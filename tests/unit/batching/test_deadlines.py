"""Deadlines come in their order, and those of requests that are over take no room."""

from __future__ import annotations

from batching.deadlines import Deadlines
from batching.requests import EngineRequest
from batching.ticket import Ticket
from models.runner import SamplingParams


def ticket(id: str, deadline: float | None) -> Ticket:
    request = EngineRequest(id, "bulk", (1,), SamplingParams(), deadline=deadline)
    return Ticket(request, lambda outcome: None)


def test_those_whose_time_has_come_are_told_once_and_in_order() -> None:
    deadlines = Deadlines()
    for id, when in (("b", 2.0), ("a", 1.0), ("never", None), ("c", 3.0)):
        deadlines.add(ticket(id, when))
    assert deadlines.next == 1.0
    assert [one.request.id for one in deadlines.pop(2.0)] == ["a", "b"]
    assert deadlines.pop(2.5) == []
    assert deadlines.next == 3.0


def test_a_request_that_is_over_is_not_told_and_leaves_by_and_by() -> None:
    deadlines = Deadlines()
    tickets = [ticket(str(number), 1_000.0 + number) for number in range(1_000)]
    for one in tickets:
        deadlines.add(one)
    for one in tickets[1:]:
        one.over = True
        deadlines.ended(one)
    assert len(deadlines) < 200
    assert deadlines.pop(9_999.0) == tickets[:1]
