"""The packed scheduler's decisions, one by one, with time given by hand."""

from __future__ import annotations

from dataclasses import replace

from batching.packed import PackedScheduler
from batching.requests import EngineConfig, EngineLane, EngineRequest
from models.runner import Purpose, SamplingParams, StepPlan
from tests.unit.batching.scripted import ScriptedPacked

BULK, EXPRESS = EngineLane.BULK, EngineLane.EXPRESS
CONFIG = EngineConfig(
    max_rows=4, express_rows=2, step_tokens=32, kv_tokens=1_000, min_prefix=8, age_limit=10
)
COMMON = tuple(range(1_000, 1_020))
LABELS = ((1, 2, 3), (1, 2, 4), (5, 6))


class Driven:
    """A scheduler with a runner that checks each of its plans."""

    def __init__(self, config: EngineConfig = CONFIG) -> None:
        self.config = config
        self.runner = ScriptedPacked(
            kv_tokens=config.kv_tokens,
            slots=config.max_rows + config.express_rows,
            budget=config.step_tokens,
        )
        self.scheduler = PackedScheduler(config, self.runner.info)

    def add(
        self,
        id: str,
        lane: str = "bulk",
        *,
        prompt: tuple[int, ...] = (1, 2, 3, 4, 5),
        tokens: int = 3,
        now: float = 0.0,
        alone: bool = False,
        n: int = 1,
        choices: tuple[tuple[int, ...], ...] = (),
        group: str | None = None,
    ) -> None:
        sampling = SamplingParams(max_tokens=tokens)
        request = EngineRequest(id, lane, prompt, sampling, alone, n, choices, group=group)
        for branch in range(n):
            self.scheduler.add(request, now, branch=branch)

    def add_group(self, rows: int, group: str = "g", *, common: tuple[int, ...] = COMMON) -> None:
        for number in range(rows):
            self.add(f"{group}{number}", prompt=(*common, number, 7), group=group)

    def step(self, now: float = 0.0) -> StepPlan:
        plan = self.scheduler.schedule(now)
        assert plan is not None
        self.scheduler.update(plan, self.runner.step(plan))
        return plan

    def finish(self, now: float = 0.0) -> list[StepPlan]:
        plans = []
        while (plan := self.scheduler.schedule(now)) is not None:
            self.scheduler.update(plan, self.runner.step(plan))
            plans.append(plan)
        return plans


def ids(plan: StepPlan) -> list[str]:
    return [row.id for row in plan.admit]


def chunks(plan: StepPlan) -> dict[str, int]:
    return {chunk.id: chunk.tokens for chunk in plan.chunks}


def test_prompts_are_read_in_chunks_beside_the_rows_that_decode() -> None:
    driven = Driven()
    driven.add("a", tokens=9)
    driven.add("b", prompt=(1,) * 50)
    driven.add("c")
    plans = [driven.step() for _ in range(3)]
    assert [chunks(plan) for plan in plans] == [{"a": 5, "b": 27}, {"b": 23, "c": 5}, {}]
    assert plans[2].decode is None
    assert len(driven.runner.ran[2]) == 3


def test_a_row_takes_the_place_of_one_that_ended_at_the_very_next_step() -> None:
    driven = Driven()
    for number in range(6):
        driven.add(f"b{number}", tokens=1 + number)
    plans = driven.finish()
    assert [ids(plan) for plan in plans[:3]] == [["b0", "b1", "b2", "b3"], ["b4"], ["b5"]]


def test_a_chat_prompt_has_a_step_to_itself_and_bulk_every_second_one() -> None:
    driven = Driven()
    driven.add("bulk", tokens=50)
    driven.step()
    turns = []
    for number in range(6):
        driven.add(f"chat{number}", "express", tokens=1)
        plan = driven.step()
        turns.append((chunks(plan), "bulk" in driven.runner.ran[-1]))
    assert [bulk_ran for _, bulk_ran in turns] == [False, True] * 3
    assert all(read == {f"chat{number}": 5} for number, (read, _) in enumerate(turns))


def test_a_chat_decodes_beside_bulk() -> None:
    driven = Driven()
    driven.add("bulk", tokens=50)
    driven.add("chat", "express", tokens=5)
    plan = driven.step()
    assert (ids(plan), plan.decode) == (["chat"], frozenset())
    driven.step()
    assert driven.runner.ran[-1] == ["chat", "bulk"]


def test_after_a_chat_steps_of_bulk_are_short_for_a_while() -> None:
    driven = Driven(replace(CONFIG, step_tokens=128))
    driven.add("chat", "express", prompt=(1,) * 4)
    driven.step()
    driven.add("bulk", prompt=(2,) * 200)
    assert chunks(driven.step(1.0)) == {"bulk": 31}
    assert chunks(driven.step(1.0)) == {"bulk": 31}
    assert chunks(driven.step(61.1))["bulk"] > 60


def test_a_long_chat_prompt_is_read_in_every_step() -> None:
    driven = Driven()
    driven.add("bulk", tokens=50)
    driven.step()
    driven.add("chat", "express", prompt=(1,) * 90)
    assert [chunks(driven.step())["chat"] for _ in range(4)] == [32, 15, 32, 11]


def test_beside_a_long_chat_prompt_bulk_reads_on_in_every_second_step() -> None:
    driven = Driven()
    driven.add("chat", "express", prompt=(1,) * 200, tokens=1)
    driven.add("bulk", prompt=(2,) * 40)
    plans = [driven.step() for _ in range(8)]
    assert [chunks(plan).get("bulk", 0) for plan in plans] == [0, 8] * 4


def test_the_minute_of_short_steps_begins_when_the_chat_ends() -> None:
    driven = Driven(replace(CONFIG, age_limit=1_000))
    driven.add("chat", "express", tokens=3)
    driven.add("bulk", prompt=(2,) * 300, tokens=1)
    for now in (0, 40, 80):
        driven.step(now)
    assert sum(chunks(driven.step(130)).values()) == 8
    assert sum(chunks(driven.step(150)).values()) == 32


def test_one_that_lacks_room_holds_up_none_that_lacks_a_fresh_step() -> None:
    driven = Driven(replace(CONFIG, kv_tokens=200))
    driven.add("long", prompt=(1,) * 62, tokens=50)
    driven.step()
    driven.add("large", prompt=(3,) * 150, tokens=4)
    driven.add("scored", prompt=(4,) * 4, choices=LABELS)
    assert ids(driven.step()) == []  # two tokens are left, and its labels take three
    assert ids(driven.step()) == ["scored"]


def test_the_prefix_of_a_chat_that_was_cancelled_is_forgotten_like_any_other() -> None:
    driven = Driven(replace(CONFIG, kv_tokens=400))
    for number in range(8):
        prompt = tuple(range(100 * number, 100 * number + 90))
        driven.add(f"chat{number}", "express", prompt=prompt, n=2)
        driven.step()
        driven.scheduler.cancel(f"chat{number}")
        driven.scheduler.cancel(f"chat{number}#1")
        driven.finish()
    assert driven.scheduler.load().kv_cached <= 400 * CONFIG.cache_share


def test_chats_have_rows_and_room_of_their_own_beside_a_full_bulk() -> None:
    driven = Driven(replace(CONFIG, kv_tokens=400))
    for number in range(6):
        driven.add(f"b{number}", prompt=(number,) * 30, tokens=90)
    for _ in range(5):
        driven.step()
    assert driven.scheduler.load().running[BULK] == 2  # of 350 positions
    for number in range(3):
        driven.add(f"c{number}", "express", tokens=2)
    plan = driven.step()
    assert ids(plan) == ["c0", "c1"]
    assert all(place.own.start >= 350 for place in plan.places)


def test_one_that_needs_all_of_the_memory_runs_when_nothing_else_does() -> None:
    driven = Driven()
    driven.add("a", tokens=9)
    driven.step()
    driven.add("giant", prompt=(1,) * 950, tokens=50)
    driven.add("b")
    plans = driven.finish()
    assert [ids(plan) for plan in plans if plan.admit] == [["giant"], ["b"]]


def test_one_that_can_never_fit_is_refused_with_what_it_needs() -> None:
    driven = Driven(replace(CONFIG, kv_tokens=100))
    fits = EngineRequest("x", "bulk", (1,) * 60, SamplingParams(max_tokens=40))
    assert driven.scheduler.refusal(fits) is None
    assert driven.scheduler.refusal(replace(fits, prompt=(1,) * 61)) == (
        "The prompt and its answer need 101 tokens of memory; there are 100."
    )


def test_a_row_that_does_not_fit_is_overtaken_until_it_has_waited_too_long() -> None:
    driven = Driven(replace(CONFIG, kv_tokens=200, min_prefix=0))
    driven.add("a", prompt=(1,) * 20, tokens=80)
    driven.add("large", prompt=(2,) * 20, tokens=80)
    driven.add("b", prompt=(3,) * 5, tokens=10)
    assert ids(driven.step()) == ["a", "b"]
    driven.add("c", prompt=(4,) * 5, tokens=5, now=1.0)
    assert ids(driven.step(CONFIG.age_limit)) == []
    driven.scheduler.cancel("large")
    assert ids(driven.step(CONFIG.age_limit)) == ["c"]


def test_the_common_beginning_of_a_job_is_read_once() -> None:
    driven = Driven()
    driven.add_group(20)
    plans = driven.finish()
    rows = [row for plan in plans for row in plan.admit]
    prefixes = [row for row in rows if row.purpose is Purpose.PREFIX]
    assert [row.prompt for row in prefixes] == [COMMON]
    read = sum(chunk.tokens for plan in plans for chunk in plan.chunks)
    assert read == len(COMMON) + 20 * 2
    assert ids(plans[0])[:2] == [prefixes[0].id, "g0"], "they share the step that reads it"
    assert driven.scheduler.load().kv_cached == len(COMMON)


def test_jobs_without_a_common_beginning_share_nothing() -> None:
    driven = Driven()
    for number in range(20):
        driven.add(f"r{number}", prompt=tuple(range(number, number + 12)), group="g")
    assert not any(row.purpose is Purpose.PREFIX for plan in driven.finish() for row in plan.admit)


def test_a_longer_beginning_is_found_on_the_way_and_copies_what_is_known() -> None:
    driven = Driven()
    blocks = [(*COMMON, *range(number, number + 12)) for number in (100, 200)]
    for block, common in enumerate(blocks):
        for number in range(40):
            prompt = (*common, 5_000 + number)
            driven.add(f"{block}-{number}", prompt=prompt, tokens=1, group="g")
    plans = driven.finish()
    places = [
        (len(row.prompt), place.copy.length if place.copy else 0)
        for plan in plans
        for row, place in zip(plan.admit, plan.places, strict=True)
        if row.purpose is Purpose.PREFIX
    ]
    assert places == [(32, 0), (32, 20)]


def test_a_prefix_that_is_shared_stays_and_an_unused_one_gives_way() -> None:
    driven = Driven(replace(CONFIG, kv_tokens=200))
    driven.add_group(3)
    driven.finish()
    assert driven.scheduler.load().kv_cached == len(COMMON)
    driven.add("large", prompt=(9,) * 100, tokens=70)
    driven.step()
    assert driven.scheduler.load().kv_cached == 0


def test_answers_to_one_prompt_share_all_of_it_but_the_last_token() -> None:
    driven = Driven()
    driven.add("chat", "express", prompt=COMMON, n=3)
    plans = driven.finish()
    read = sum(chunk.tokens for plan in plans for chunk in plan.chunks)
    assert read == len(COMMON) - 1 + 3
    rows = [row for plan in plans for row in plan.admit if row.purpose is Purpose.GENERATE]
    assert {(row.id, row.branch) for row in rows} == {("chat", 0), ("chat#1", 1), ("chat#2", 2)}


def test_express_does_not_wait_for_a_beginning_that_bulk_still_reads() -> None:
    common = tuple(range(1_000, 1_200))
    driven = Driven()
    driven.add_group(3, common=common)
    driven.step()
    driven.add("chat", "express", prompt=common[:20], n=2)
    admitted = driven.step().admit
    assert [(row.purpose, row.prompt) for row in admitted[:1]] == [(Purpose.PREFIX, common[:19])]
    assert [row.id for row in admitted[1:]] == ["chat"]
    driven.finish()


def test_the_next_turn_of_a_chat_copies_what_is_left_of_the_last_one() -> None:
    driven = Driven()
    driven.add("turn1", "express", prompt=COMMON)
    driven.finish()
    driven.add("turn2", "express", prompt=(*COMMON, 1, 2, 3))
    plan = driven.step()
    assert chunks(plan) == {"turn2": 3}
    assert plan.places[0].copy is not None
    driven.finish()
    assert driven.scheduler.load().kv_cached == len(COMMON) + 3


def test_a_scored_row_reads_its_last_token_and_its_labels_in_one_step() -> None:
    driven = Driven(replace(CONFIG, step_tokens=16))
    driven.add("scored", prompt=(1,) * 14, choices=LABELS)
    driven.add("next")
    plans = driven.finish()
    assert [chunks(plan) for plan in plans[:2]] == [
        {"scored": 13, "next": 3},
        {"scored": 1, "next": 2},
    ]


def test_more_labels_than_a_step_holds_go_first_in_a_step() -> None:
    driven = Driven(replace(CONFIG, step_tokens=16))
    driven.add("row", tokens=9)
    driven.step()
    many = tuple((number, 1) for number in range(30))
    driven.add("scored", prompt=(1,) * 5, choices=many)
    assert [chunks(driven.step()) for _ in range(2)] == [{"scored": 4}, {"scored": 1}]
    assert driven.scheduler.find("scored") is None


def test_a_cancelled_row_frees_its_place_within_one_step() -> None:
    driven = Driven(replace(CONFIG, max_rows=1, kv_tokens=40, min_prefix=0))
    driven.add("a", tokens=20)
    driven.add("b", tokens=20)
    driven.step()
    assert driven.scheduler.cancel("a") is not None
    plan = driven.step()
    assert (plan.drop, ids(plan)) == (("a",), ["b"])
    assert plan.places[0].own.start == 0
    driven.scheduler.cancel("b")
    assert driven.step().drop == ("b",)
    assert driven.scheduler.schedule(0.0) is None


def test_out_of_memory_halves_rows_and_tokens_and_all_rows_run_again() -> None:
    driven = Driven()
    for number in range(4):
        driven.add(f"b{number}")
    plan = driven.scheduler.schedule(0.0)
    assert plan is not None
    assert driven.scheduler.fail(plan, out_of_memory=True) == []
    assert driven.scheduler.load().kv_used == 0
    plan = driven.step()
    assert sum(chunks(plan).values()) <= 16
    assert len(ids(plan)) <= 2


def test_rows_of_a_failed_step_run_one_by_one_and_chats_between_them() -> None:
    driven = Driven()
    for number in range(3):
        driven.add(f"b{number}", tokens=1)
    plan = driven.scheduler.schedule(0.0)
    assert plan is not None
    assert driven.scheduler.fail(plan, out_of_memory=False) == []
    driven.add("chat", "express", tokens=1)
    driven.add("later", tokens=1)
    assert [ids(plan) for plan in driven.finish()] == [["b0"], ["chat"], ["b1"], ["b2"], ["later"]]


def test_a_single_row_that_fails_is_to_blame() -> None:
    driven = Driven()
    driven.add("bad")
    plan = driven.scheduler.schedule(0.0)
    assert plan is not None
    guilty = driven.scheduler.fail(plan, out_of_memory=False)
    assert [sequence.id for sequence in guilty] == ["bad"]
    assert driven.scheduler.schedule(0.0) is None


def test_a_prefix_that_fails_is_the_fault_of_the_row_that_it_is_read_for() -> None:
    driven = Driven()
    driven.add_group(5, common=tuple(range(1_000, 1_040)))
    plan = driven.scheduler.schedule(0.0)
    assert plan is not None
    assert [row.purpose for row in plan.admit] == [Purpose.PREFIX]
    assert [sequence.id for sequence in driven.scheduler.entering(plan)] == ["g0"]
    assert driven.scheduler.fail(plan, out_of_memory=False) == []
    plan = driven.scheduler.schedule(0.0)
    assert plan is not None
    assert ids(plan) == ["g0"]
    assert [row.id for row in driven.scheduler.fail(plan, out_of_memory=False)] == ["g0"]


def test_what_is_not_admitted_yet_waits_while_the_rest_of_a_step_runs() -> None:
    driven = Driven()
    driven.add("a", tokens=9)
    driven.step()
    (first,) = [driven.scheduler.find("a")]
    assert first is not None
    first.admitted = True
    driven.add("b")
    plan = driven.scheduler.schedule(0.0)
    assert plan is not None
    rest = driven.scheduler.take_back(plan)
    assert rest is not None
    assert (rest.admit, rest.places, rest.chunks) == ((), (), ())
    driven.scheduler.hold(2.0)
    driven.scheduler.update(rest, driven.runner.step(rest))
    assert ids(driven.step(1.9)) == []
    assert driven.scheduler.next_due() == 2.0
    assert ids(driven.step(2.0)) == ["b"]


def test_the_runner_says_how_much_it_can_hold() -> None:
    info = replace(ScriptedPacked().info, kv_tokens=500, max_rows=3)
    scheduler = PackedScheduler(CONFIG, info)
    for number in range(5):
        request = EngineRequest(f"r{number}", "bulk", (1,), SamplingParams(max_tokens=2))
        scheduler.add(request, 0.0)
    plan = scheduler.schedule(0.0)
    assert plan is not None
    assert len(plan.admit) == 3
    assert scheduler.load().kv_tokens == 500
