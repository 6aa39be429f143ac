"""What becomes of those that follow a prompt, by how that ended: the parts that talk, without an
engine."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace

import pytest

from batching.requests import EngineRequest
from models.fake import FakeRunner
from models.runner import SamplingParams
from penstock.errors import PromptError
from storage.database import Database
from storage.records import ClaimedRequest, ClaimedShard, Outcome
from storage.states import Lane
from tests.support import jobs
from workers.lease import Lease
from workers.reuse import Reuse, ReuseRules, Row

PARAMS = {"temperature": 0}


@dataclass
class Desk:
    """A `Reuse` and all that it says."""

    database: Database
    answers: list[tuple[int, Outcome]] = field(default_factory=list)
    led: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.reuse = Reuse(
            database=self.database,
            info=FakeRunner().info,
            rules=ReuseRules(),
            answer=lambda lease, outcome: self.answers.append((lease.shard.id, outcome)),
            lead=self._lead,
        )

    def _lead(self, row: Row) -> None:
        self.led.append(row.request.id)

    def begin(self, shard: int, deadline: float | None = None, rows: int = 1) -> Lease:
        """A shard of equal prompts."""
        requests = tuple(ClaimedRequest(n, (("user", "same"),)) for n in range(rows))
        lease = Lease(ClaimedShard(shard, 1, "b", Lane.BULK, False, "o", PARAMS, None, requests))
        sampling = SamplingParams(temperature=0)
        ready = {
            n: EngineRequest(lease.request_id(n), "bulk", (1, 2), sampling, deadline=deadline)
            for n in range(rows)
        }
        self.led += [one.id for one in self.reuse.begin(lease, ready).values()]
        return lease


@pytest.fixture
def desk(database: Database) -> Desk:
    return Desk(database)


def test_a_failure_that_is_the_prompts_own_is_everybodys(desk: Desk) -> None:
    for shard in (1, 2, 3):
        desk.begin(shard)

    failure = jobs.failure(0, PromptError.OUT_OF_MEMORY)
    kept = desk.reuse.landed("1.1.0", failure)

    assert kept == failure
    assert [shard for shard, _ in desk.answers] == [2, 3]
    for _, outcome in desk.answers:
        assert outcome.error_code == PromptError.OUT_OF_MEMORY
        assert (outcome.prompt_tokens, outcome.from_cache) == (0, False)
    desk.begin(4)
    assert desk.led == ["1.1.0", "4.1.0"]


def test_after_a_failure_of_the_engine_the_next_one_leads(desk: Desk) -> None:
    waiting = [desk.begin(shard) for shard in (1, 2, 3)]

    desk.reuse.landed("1.1.0", jobs.failure(0, PromptError.ENGINE))
    desk.reuse.landed("2.1.0", jobs.answer(0))

    assert desk.led == ["1.1.0", "2.1.0"]
    assert [(shard, one.text, one.from_cache) for shard, one in desk.answers] == [
        (3, "answer 0", True)
    ]
    assert [lease.unended for lease in waiting] == [1, 1, 0]  # the first two are the engine's


def test_when_the_engine_stops_all_go_back_to_the_queue(desk: Desk) -> None:
    leases = [desk.begin(shard, rows=2) for shard in (1, 2)]

    desk.reuse.left("1.1.0")

    assert desk.led == ["1.1.0"]
    assert [lease.returned for lease in leases] == [1, 2]
    assert leases[1].over


def test_those_without_time_or_a_lease_do_not_lead(desk: Desk) -> None:
    desk.begin(1)
    late, lost, able = desk.begin(2, deadline=0.0), desk.begin(3), desk.begin(4)
    lost.lose()

    desk.reuse.drop(["1.1.0"])

    assert desk.led == ["1.1.0", "4.1.0"]
    assert (late.returned, lost.returned, able.unended) == (1, 0, 1)


def test_who_is_dropped_neither_leads_nor_is_answered(desk: Desk) -> None:
    desk.begin(1)
    dropped = desk.begin(2, rows=2)

    desk.reuse.drop(dropped.open_ids())
    desk.reuse.landed("1.1.0", jobs.answer(0))

    assert (desk.answers, dropped.returned, dropped.over) == ([], 2, True)


def test_turns_that_were_left_out_of_one_prompt_are_not_said_of_an_equal_one(desk: Desk) -> None:
    for shard in (1, 2):
        desk.begin(shard)

    detail = '{"completions": [], "dropped_turns": 3}'
    desk.reuse.landed("1.1.0", replace(jobs.answer(0), detail=detail))
    desk.begin(3)

    details = [json.loads(str(outcome.detail)) for _, outcome in desk.answers]
    assert details == [{"completions": []}] * 2


def test_an_answer_is_at_hand_until_it_is_stored(desk: Desk) -> None:
    first = desk.begin(1)
    outcome = desk.reuse.landed("1.1.0", jobs.answer(0))
    desk.begin(2)
    assert [shard for shard, _ in desk.answers] == [2]

    desk.reuse.settled(first, [outcome])  # refused, as it were: it is in no table
    desk.begin(3)
    assert desk.led == ["1.1.0", "3.1.0"]
    assert desk.reuse.stats() == {"cache_hits": 1, "cache_misses": 2, "saved_tokens": 5}
