"""The padded scheduler's decisions, one by one, with time given by hand."""

from __future__ import annotations

from batching.padded import PaddedScheduler
from batching.requests import EngineConfig, EngineLane, EngineRequest
from models.runner import FinishReason, RowStep, SamplingParams, StepOutput, StepPlan

CONFIG = EngineConfig(max_rows=4, max_batch_tokens=100, max_wait=0.5, express_rows=2)


def request(id: str, lane: str = "bulk", length: int = 5, *, alone: bool = False) -> EngineRequest:
    return EngineRequest(id, lane, (1,) * length, SamplingParams(), alone)


def scheduler_with(*requests: EngineRequest, now: float = 0.0) -> Driven:
    scheduler = Driven(CONFIG)
    for one in requests:
        scheduler.add(one, now)
    return scheduler


def bulk(count: int, start: int = 0) -> list[EngineRequest]:
    return [request(f"b{number}") for number in range(start, start + count)]


def ids(plan: StepPlan | None) -> list[str]:
    assert plan is not None
    return sorted(row.id for row in plan.admit)


class Driven(PaddedScheduler):
    """Remembers who is in which micro-batch."""

    def __init__(self, config: EngineConfig) -> None:
        super().__init__(config)
        self.rows: dict[int, set[str]] = {}

    def run(self, now: float = 0.0, *, ends: bool | set[str] = False) -> StepPlan:
        """Schedule a step and book its output; `ends` are the rows that finish with it."""
        plan = self.schedule(now)
        assert plan is not None
        rows = self.rows.setdefault(plan.micro_batch, set()) | {row.id for row in plan.admit}
        rows -= set(plan.drop)
        over = rows if ends is True else rows & (ends or set())
        steps = [RowStep(id, "x", FinishReason.STOP) for id in sorted(over)]
        self.update(plan, StepOutput(tuple(steps)))
        self.rows[plan.micro_batch] = rows - over
        return plan


def test_a_full_micro_batch_is_formed_at_once() -> None:
    assert len(ids(scheduler_with(*bulk(4)).schedule(0.0))) == 4


def test_a_part_of_one_waits_until_the_oldest_has_waited_long_enough() -> None:
    scheduler = scheduler_with(*bulk(2))
    assert scheduler.schedule(0.49) is None
    assert scheduler.next_due() == 0.5
    assert ids(scheduler.schedule(0.5)) == ["b0", "b1"]


def test_a_chat_does_not_wait_for_company() -> None:
    assert ids(scheduler_with(request("chat", "express")).schedule(0.0)) == ["chat"]


def test_a_chat_goes_before_the_next_bulk_step_and_then_steps_alternate() -> None:
    scheduler = scheduler_with(*bulk(4))
    first = scheduler.run()
    scheduler.add(request("chat", "express"), 0.0)
    plans = [scheduler.run() for _ in range(5)]
    chat = plans[0].micro_batch
    assert ids(plans[0]) == ["chat"]
    assert [plan.micro_batch for plan in plans[1:]] == [
        first.micro_batch,
        chat,
        first.micro_batch,
        chat,
    ]


def test_each_of_several_chats_steps_between_two_bulk_steps() -> None:
    scheduler = scheduler_with(*bulk(4))
    first = scheduler.run()
    for name in ("x", "y"):
        scheduler.add(request(name, "express"), 0.0)
        scheduler.run()
    plans = [scheduler.run().micro_batch for _ in range(6)]
    assert plans.count(first.micro_batch) == 2


def test_one_token_chats_without_end_do_not_stop_the_bulk() -> None:
    scheduler = scheduler_with(*bulk(4))
    first = scheduler.run().micro_batch
    stepped = []
    for number in range(12):
        scheduler.add(request(f"c{number}", "express"), 0.0)
        chats = {f"c{past}" for past in range(number + 1)}
        stepped.append(scheduler.run(ends=chats).micro_batch)
    assert stepped[1::2] == [first] * 6


def test_chats_have_rows_of_their_own_beside_a_full_bulk() -> None:
    scheduler = scheduler_with(*bulk(4))
    scheduler.run()
    for number in range(3):
        scheduler.add(request(f"c{number}", "express"), 0.0)
    assert ids(scheduler.run()) == ["c0", "c1"]
    assert scheduler.load().running == {"bulk": 4, "express": 2}
    assert scheduler.load().waiting == {"bulk": 0, "express": 1}


def test_a_second_bulk_micro_batch_waits_until_most_of_the_rows_are_free() -> None:
    scheduler = Driven(EngineConfig(max_rows=8, max_batch_tokens=100))
    for one in bulk(16):
        scheduler.add(one, 0.0)
    first = ids(scheduler.run())
    assert not scheduler.run(9.0, ends=set(first[:6])).admit
    assert not scheduler.run(9.0, ends={first[6]}).admit
    assert len(ids(scheduler.run(9.0))) == 7
    assert scheduler.load().running[EngineLane.BULK] == 8


def test_lengths_decide_who_goes_together_but_the_oldest_cannot_starve() -> None:
    scheduler = Driven(CONFIG)
    scheduler.add(request("short", length=1), 0.0)
    for number in range(8):
        scheduler.add(request(f"long{number}", length=20), 0.0)
    assert "short" not in ids(scheduler.run(ends=True))
    assert "short" in ids(scheduler.run(CONFIG.age_limit))


def test_one_that_must_be_alone_waits_for_an_empty_engine_and_keeps_it() -> None:
    scheduler = scheduler_with(*bulk(4))
    scheduler.run()
    scheduler.add(request("suspect", alone=True), 0.0)
    scheduler.add(request("chat", "express"), 0.0)
    assert not scheduler.run().admit
    scheduler.run(ends=True)
    assert ids(scheduler.run()) == ["suspect"]
    assert not scheduler.run().admit
    scheduler.run(ends=True)
    assert ids(scheduler.run()) == ["chat"]


def test_a_cancelled_row_is_dropped_at_the_next_step_of_its_micro_batch() -> None:
    scheduler = scheduler_with(*bulk(4))
    scheduler.run()
    assert scheduler.cancel("b1") is not None
    assert scheduler.cancel("b1") is None
    assert scheduler.run().drop == ("b1",)
    assert scheduler.run().drop == ()
    assert scheduler.load().running[EngineLane.BULK] == 3


def test_a_micro_batch_that_lost_all_its_rows_is_not_stepped_but_forgotten() -> None:
    scheduler = scheduler_with(*bulk(4))
    plan = scheduler.run()
    for number in range(4):
        scheduler.cancel(f"b{number}")
    assert scheduler.take_emptied() == [plan.micro_batch]
    assert scheduler.take_emptied() == []
    assert scheduler.schedule(99.0) is None


def test_out_of_memory_halves_the_rows_and_they_grow_back() -> None:
    scheduler = scheduler_with(*bulk(4))
    plan = scheduler.schedule(0.0)
    assert plan is not None
    assert scheduler.fail(plan, out_of_memory=True) == []
    assert len(ids(scheduler.run(ends=True))) == 2
    assert len(ids(scheduler.run(1.0, ends=True))) == 2
    assert scheduler.limit.value == 4


def test_a_single_row_out_of_memory_is_tried_alone_before_it_is_given_up() -> None:
    scheduler = scheduler_with(request("chat", "express"), *bulk(4))
    plan = scheduler.schedule(0.0)
    assert plan is not None
    scheduler.update(plan, StepOutput((RowStep("chat", "x"),)))
    scheduler.run()
    assert scheduler.fail(plan, out_of_memory=True) == []
    scheduler.run(ends=True)
    plan = scheduler.schedule(0.0)
    assert plan is not None
    assert ids(plan) == ["chat"]
    assert [row.id for row in scheduler.fail(plan, out_of_memory=True)] == ["chat"]


def test_rows_of_a_failed_micro_batch_run_one_by_one() -> None:
    scheduler = scheduler_with(*bulk(4))
    plan = scheduler.schedule(0.0)
    assert plan is not None
    assert scheduler.fail(plan, out_of_memory=False) == []
    assert [ids(scheduler.run(ends=True)) for _ in range(4)] == [["b0"], ["b1"], ["b2"], ["b3"]]


def test_nothing_is_admitted_while_admission_is_on_hold() -> None:
    scheduler = scheduler_with(*bulk(4))
    plan = scheduler.schedule(0.0)
    assert plan is not None
    assert len(scheduler.entering(plan)) == 4
    scheduler.take_back(plan)
    scheduler.hold(2.0)
    assert scheduler.schedule(1.9) is None
    assert scheduler.next_due() == 2.0
    assert len(ids(scheduler.schedule(2.0))) == 4
