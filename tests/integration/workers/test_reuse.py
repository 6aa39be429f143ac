"""Equal prompts in a worker: computed once, whoever asks, and nobody loses by it."""

from __future__ import annotations

import json
import signal
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

import pytest
from sqlalchemy import text

from batching.engine import Engine
from batching.requests import EngineConfig
from models.fake import FakeRunner
from models.runner import ModelInfo, StepOutput, StepPlan
from storage import intake, leases, lifecycle, reading
from storage.database import Database
from storage.records import NewPrompt, ResultRow
from storage.states import BatchStatus, Lane
from tests.support import jobs as stored_jobs
from tests.support.waiting import until
from tests.support.workers import Jobs, Processes
from workers.committer import Committer
from workers.lanes import LaneSizes
from workers.lease import Lease, Leases
from workers.reuse import ReuseRules
from workers.shards import ShardRunner, WorkerIdentity

GREEDY = {"max_tokens": 16, "temperature": 0}
HOT = {"max_tokens": 16, "temperature": 0.7}
PROMPT = "what is this about and why is it"
ANSWER = f"echo: {PROMPT}"
SLOW = 2  # tokens per second: an answer takes four


class Counting(FakeRunner):
    """Counts generations; takes its time until it is told to hurry."""

    def __init__(self, speed: float) -> None:
        super().__init__(tokens_per_second=speed)
        self.generations = 0

    def hurry(self) -> None:
        self._delay = 0.0

    def step(self, plan: StepPlan) -> StepOutput:
        self.generations += sum(row.purpose != "prefix" and not row.branch for row in plan.admit)
        return super().step(plan)


def post(database: Database, copies: int = 1, prompt: str = PROMPT, **changes: object) -> str:
    """A job of equal prompts."""
    batch = stored_jobs.new_batch(**{"params": GREEDY, **changes})
    with database.begin() as conn:
        intake.create_batch(conn, batch, [NewPrompt((("user", prompt),))] * copies)
    return batch.id


@dataclass
class Bench:
    """The parts of a worker without its process."""

    database: Database
    runner: Counting
    shards: ShardRunner
    engine: Engine
    committer: Committer
    begun: list[Lease] = field(default_factory=list)

    def run(
        self, copies: int = 1, prompt: str = PROMPT, lane: Lane = Lane.BULK, **changes: object
    ) -> list[ResultRow]:
        """The results of a job of equal prompts."""
        batch = post(self.database, copies, prompt, lane=lane, **changes)
        for lease in self.begin(lane):
            self.shards.finish(lease)
        return self.results(batch)

    def begin(self, lane: Lane = Lane.BULK) -> list[Lease]:
        found = self.shards.claim(lane)
        for lease in found:
            self.shards.begin(lease)
        return found

    def results(self, batch: str) -> list[ResultRow]:
        with self.database.begin() as conn:
            return reading.results(conn, batch, 0, 2_000)

    def stop(self) -> None:
        self.shards.admissions.stop()
        self.engine.stop()
        self.committer.stop()


Make = Callable[..., Bench]


@pytest.fixture
def make_bench(database: Database) -> Iterator[Make]:
    running: list[Bench] = []

    def make(
        rules: ReuseRules | None = None, speed: float = 0.0, revision: str = "", slot: str = "slot"
    ) -> Bench:
        runner = Counting(speed)
        info: ModelInfo = replace(runner.info, revision=revision)
        shards = ShardRunner(
            database=database,
            codec=runner.codec,
            info=info,
            identity=WorkerIdentity(slot, "boot", stored_jobs.MODEL, lease_seconds=60),
            held=Leases(),
            sizes=LaneSizes(rows=64, express_rows=8),
            reuse=rules,
        )
        engine = Engine(runner, EngineConfig(), on_admit=shards.on_admit)
        committer = Committer(
            database, lease_seconds=60, on_lost=shards.lose, on_settled=shards.reuse.settled
        )
        shards.attach(engine, committer)
        for part in (engine, committer, shards.admissions):
            part.start()
        running.append(Bench(database, runner, shards, engine, committer))
        return running[-1]

    yield make
    for bench in running:
        bench.stop()


def admissions(database: Database, batch: str) -> list[tuple[str, int, int]]:
    """(state, attempts, crashes) of each prompt, in order."""
    query = text(
        "SELECT state, attempts, crashes FROM requests WHERE batch_id = :id ORDER BY position"
    )
    with database.begin() as conn:
        return [tuple(row) for row in conn.execute(query, {"id": batch})]


# ---- whole workers ------------------------------------------------------------------------


def test_a_thousand_equal_prompts_are_computed_once_and_each_result_says_so(
    jobs: Jobs, processes: Processes, database: Database
) -> None:
    batch = post(database, 1_000)
    processes.start("worker", PENSTOCK_MODEL__FAKE_TOKENS_PER_SECOND="20")
    until("the job ends", lambda: jobs.finished(batch))

    assert sum(attempts for _, attempts, _ in admissions(database, batch)) == 1
    rows = jobs.results(batch)
    assert Counter((row.text, row.from_cache) for row in rows) == {
        (ANSWER, True): 999,
        (ANSWER, False): 1,
    }
    job, tokens = jobs.get(batch), rows[0].prompt_tokens + rows[0].completion_tokens
    assert (job.status, job.completed) == (BatchStatus.COMPLETED, 1_000)
    assert job.prompt_tokens + job.completion_tokens == 1_000 * tokens
    assert job.saved_tokens == 999 * tokens

    again, chat = post(database, 70), post(database, lane=Lane.EXPRESS)
    until("both end", lambda: jobs.finished(again) and jobs.finished(chat))
    assert {row.from_cache for row in jobs.results(again) + jobs.results(chat)} == {True}
    assert {*admissions(database, again), *admissions(database, chat)} == {("done", 0, 0)}

    def counted() -> bool:
        with database.begin() as conn:
            stats = conn.execute(text("SELECT stats FROM workers")).scalar_one()
        expected = {"cache_hits": 1_070, "cache_misses": 1, "saved_tokens": 1_070 * tokens}
        return bool(expected.items() <= stats.items())

    until("its figures say so", counted)


def test_a_killed_worker_leaves_no_trace_on_those_that_followed(
    jobs: Jobs, processes: Processes, database: Database
) -> None:
    batch = post(database, 150)
    slow = {"PENSTOCK_MODEL__FAKE_TOKENS_PER_SECOND": "0.2"}
    first = processes.start("worker", **slow)
    until("it runs", lambda: ("running", 1, 0) in admissions(database, batch))
    first.kill()
    first.wait(timeout=10)
    processes.start("worker")  # the same slot: it frees the leases at once
    until("the job ends", lambda: jobs.finished(batch))

    traces = Counter(admissions(database, batch))
    # The one that ran is run once more, by itself or by another that leads now.
    assert traces["done", 0, 0] >= 148
    assert sum(attempts * count for (_, attempts, _), count in traces.items()) == 2
    assert sum(crashes * count for (_, _, crashes), count in traces.items()) == 1
    assert {row.text for row in jobs.results(batch)} == {ANSWER}
    assert sum(not row.from_cache for row in jobs.results(batch)) == 1


def test_sigterm_gives_followers_back_with_their_leader(
    processes: Processes, database: Database
) -> None:
    batch = post(database, 150)
    worker = processes.start("worker", PENSTOCK_MODEL__FAKE_TOKENS_PER_SECOND="0.5")
    until("it runs", lambda: ("running", 1, 0) in admissions(database, batch))
    worker.send_signal(signal.SIGTERM)

    assert worker.wait(timeout=20) == 0
    assert set(admissions(database, batch)) == {("pending", 0, 0)}
    with database.begin() as conn:
        assert set(conn.execute(text("SELECT state FROM shards")).scalars()) == {"ready"}


# ---- who leads ----------------------------------------------------------------------------


def test_when_the_leaders_job_is_cancelled_another_leads(
    make_bench: Make, database: Database
) -> None:
    bench = make_bench(speed=SLOW)
    first, second = post(database, 2), post(database, 3)
    leader, follower = bench.begin()
    until("it runs", lambda: bench.runner.generations == 1)

    with database.begin() as conn:
        lifecycle.request_cancel(conn, stored_jobs.OWNER, first)
        lifecycle.close_open(conn)
    bench.shards.lose(leader)  # as the heartbeat does when it looks
    bench.runner.hurry()
    for lease in (leader, follower):
        bench.shards.finish(lease)

    assert [row.error_code for row in bench.results(first)] == ["cancelled"] * 2
    assert [(row.text, row.from_cache) for row in bench.results(second)] == [
        (ANSWER, False),
        (ANSWER, True),
        (ANSWER, True),
    ]
    assert bench.runner.generations == 2
    assert admissions(database, second) == [("done", 1, 0), ("done", 0, 0), ("done", 0, 0)]


def test_a_leader_lost_to_another_epoch_costs_its_followers_nothing(
    make_bench: Make, database: Database
) -> None:
    bench = make_bench(speed=SLOW)
    first, second = post(database), post(database)
    leader, follower = bench.begin()
    until("it runs", lambda: bench.runner.generations == 1)

    with database.begin() as conn:
        conn.execute(
            text("UPDATE shards SET lease_until = now() - interval '1s' WHERE id = :id"),
            {"id": leader.shard.id},
        )
        assert leases.reap(conn) == 1
    bench.shards.lose(leader)
    (again,) = bench.begin()
    bench.runner.hurry()
    for lease in (leader, follower, again):
        bench.shards.finish(lease)

    assert [row.text for row in bench.results(first) + bench.results(second)] == [ANSWER] * 2
    assert (bench.runner.generations, again.reused) == (2, 1)
    assert admissions(database, second) == [("done", 1, 0)]


def test_who_leads_next_in_a_chat_is_admitted_by_the_engine_and_not_by_who_says_so(
    make_bench: Make, database: Database
) -> None:
    bench = make_bench()
    first, second = post(database, lane=Lane.EXPRESS), post(database, lane=Lane.EXPRESS)
    leader, follower = bench.shards.claim(Lane.EXPRESS)
    idle = Engine(bench.runner, EngineConfig())  # is not started, so it takes nothing
    bench.shards.attach(idle, bench.committer)
    for lease in (leader, follower):
        bench.shards.begin(lease)

    bench.shards.lose(leader)

    assert (follower.unended, follower.returned) == (1, 0)
    assert admissions(database, first) == [("running", 1, 0)]
    assert admissions(database, second) == [("pending", 0, 0)]


def test_when_the_leaders_time_is_over_one_with_time_leads(
    make_bench: Make, database: Database
) -> None:
    bench = make_bench(speed=SLOW)
    hasty, patient = post(database, expires_in=1.0), post(database)
    for lease in bench.begin():
        bench.shards.finish(lease)

    assert bench.results(hasty) == []
    assert [row.text for row in bench.results(patient)] == [ANSWER]
    assert admissions(database, patient) == [("done", 1, 0)]


def test_a_suspect_runs_by_itself_whatever_is_known(make_bench: Make, database: Database) -> None:
    bench = make_bench()
    bench.run()
    post(database)
    with database.begin() as conn:
        conn.execute(text("UPDATE shards SET alone = true WHERE state = 'ready'"))
    for lease in bench.begin():
        bench.shards.finish(lease)

    assert bench.runner.generations == 2


# ---- what is equal ------------------------------------------------------------------------


def test_a_repeat_is_a_hit_and_any_other_prompt_parameter_or_revision_a_miss(
    make_bench: Make,
) -> None:
    bench = make_bench()
    seeded = HOT | {"seed": 7}
    kept = [
        {},
        {"prompt": "another"},
        {"system": "Be brief."},
        {"params": GREEDY | {"max_tokens": 2}},
        {"params": GREEDY | {"stop": ["about"]}},
        {"params": seeded},
        {"params": seeded | {"seed": 8}},
        {"params": seeded | {"temperature": 0.9}},
        {"params": HOT | {"use_cache": True}},
        {"params": GREEDY | {"n": 2}},
        {"params": GREEDY | {"mode": "score", "choices": ["a", "b"]}},
        {"params": GREEDY | {"mode": "score", "choices": ["a", "c"]}},
    ]
    never = [{"params": HOT}, {"params": GREEDY | {"use_cache": False}}]

    first = [bench.run(**one)[0].from_cache for one in kept + never]  # type: ignore[arg-type]
    again = [bench.run(**one)[0].from_cache for one in kept + never]  # type: ignore[arg-type]

    assert first == [False] * len(kept + never)
    assert again == [True] * len(kept) + [False] * len(never)
    # A seed changes nothing where nothing is drawn.
    assert bench.run(params=GREEDY | {"seed": 3, "top_p": 0.5})[0].from_cache
    assert not make_bench(revision="other").run()[0].from_cache


def test_an_answer_is_copied_whole(make_bench: Make, database: Database) -> None:
    bench = make_bench()
    asked = GREEDY | {"n": 2, "logprobs": True, "top_logprobs": 1}

    jobs = [post(database, params=asked), post(database, params=asked)]
    for lease in bench.begin():
        bench.shards.finish(lease)
    jobs.append(post(database, params=asked))
    for lease in bench.begin():
        bench.shards.finish(lease)

    with database.begin() as conn:
        details = [json.loads(reading.details(conn, job, 0, 1)[0]) for job in jobs]
    rows = [replace(bench.results(job)[0], from_cache=False) for job in jobs]
    assert len(details[0]["completions"]) == 2
    assert details[0] == details[1] == details[2]
    assert rows[0] == rows[1] == rows[2]
    assert bench.runner.generations == 1


@pytest.mark.parametrize("shared", [False, True])
def test_owners_share_nothing_unless_a_setting_lets_them(
    make_bench: Make, database: Database, shared: bool
) -> None:
    bench = make_bench(ReuseRules(shared=shared))
    mine, theirs = post(database, owner="ann"), post(database, owner="bob")
    for lease in bench.begin():  # at once: one would follow the other
        bench.shards.finish(lease)
    late = bench.run(owner="eve")

    assert len(bench.results(mine) + bench.results(theirs)) == 2
    assert late[0].from_cache is shared
    assert bench.runner.generations == (1 if shared else 3)


def test_nothing_is_reused_where_it_is_turned_off(make_bench: Make) -> None:
    bench = make_bench(ReuseRules(enabled=False))

    assert [row.from_cache for row in bench.run(3)] == [False] * 3
    assert bench.runner.generations == 3


def test_a_chat_never_waits_for_an_equal_prompt_of_a_job(
    make_bench: Make, database: Database
) -> None:
    bench = make_bench(speed=SLOW)
    post(database)
    (bulk,) = bench.begin()
    until("the job runs", lambda: bench.runner.generations == 1)
    bench.runner.hurry()

    (row,) = bench.run(lane=Lane.EXPRESS)

    assert (row.text, row.from_cache, bench.runner.generations) == (ANSWER, False, 2)
    bench.shards.finish(bulk)
