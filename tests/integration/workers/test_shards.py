"""A claimed shard through the engine and back: what is asked of it, and what is stored."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import pytest
from sqlalchemy import text

from batching.engine import Engine
from batching.requests import EngineConfig
from models.fake import FakeCodec, FakeRunner
from models.runner import Codec
from penstock.errors import InvalidRequest
from storage import intake, lifecycle, reading
from storage.database import Database
from storage.records import RAW, Batch, NewPrompt, ResultRow
from storage.states import Lane
from storage.tables import SHARD_SIZE
from tests.support import jobs
from tests.support.talk import say
from tests.support.waiting import until
from tests.support.workers import Jobs
from workers.committer import Committer
from workers.generate import run_all
from workers.lanes import LaneShares, LaneSizes
from workers.lease import Lease, Leases
from workers.pace import Pace
from workers.poller import Poller
from workers.shards import ShardRunner, WorkerIdentity

IDENTITY = WorkerIdentity(slot="slot", boot_id="boot", model=jobs.MODEL, lease_seconds=60)


@dataclass
class Bench:
    """The parts of a worker without its process."""

    database: Database
    shards: ShardRunner
    held: Leases

    def run(self, lane: Lane = Lane.BULK, **batch: object) -> tuple[list[ResultRow], list[object]]:
        """Results and details of a job of two prompts."""
        return self.work(jobs.store(self.database, 2, lane=lane, **batch))

    def work(self, stored: Batch) -> tuple[list[ResultRow], list[object]]:
        for lease in self.shards.claim(stored.lane):
            self.shards.run(lease)
        with self.database.begin() as conn:
            details = reading.details(conn, stored.id, 0, 2)
            rows = reading.results(conn, stored.id, 0, 2)
        return rows, [json.loads(details[n]) if n in details else None for n in range(2)]


Make = Callable[..., Bench]


@pytest.fixture
def make_bench(database: Database) -> Iterator[Make]:
    running: list[tuple[Engine, Committer, ShardRunner]] = []

    def make(codec: Codec | None = None, speed: float = 0.0) -> Bench:
        runner = FakeRunner(tokens_per_second=speed)
        held = Leases()
        shards = ShardRunner(
            database=database,
            codec=codec or runner.codec,
            info=runner.info,
            identity=IDENTITY,
            held=held,
            sizes=LaneSizes(rows=64, express_rows=8),
        )
        engine = Engine(runner, EngineConfig(), on_admit=shards.on_admit)
        committer = Committer(database, lease_seconds=60, on_lost=shards.lose)
        shards.attach(engine, committer)
        for part in (engine, committer, shards.admissions):
            part.start()
        running.append((engine, committer, shards))
        return Bench(database, shards, held)

    yield make
    for engine, committer, shards in running:
        shards.admissions.stop()
        engine.stop()
        committer.stop()


def test_an_answer_is_stored_as_a_text_and_nothing_else(make_bench: Make) -> None:
    rows, details = make_bench().run()

    assert [row.text for row in rows] == ["echo: prompt 0", "echo: prompt 1"]
    assert details == [None, None]


@pytest.mark.parametrize("lane", list(Lane))
def test_labels_are_scored_in_either_lane(make_bench: Make, lane: Lane) -> None:
    params = {"mode": "score", "choices": ["good", "bad", "so-so"]}

    rows, details = make_bench().run(lane=lane, params=params)

    for row, detail in zip(rows, details, strict=True):
        assert isinstance(detail, dict)
        probabilities = detail["probabilities"]
        assert row.text == max(probabilities, key=probabilities.__getitem__)
        assert probabilities.keys() == detail["scores"].keys() == {"good", "bad", "so-so"}
        assert sum(probabilities.values()) == pytest.approx(1)
        assert row.finish_reason == "stop"


def test_labels_are_scored_by_the_mean_of_their_tokens_where_that_is_asked_for(
    make_bench: Make,
) -> None:
    params = {"mode": "score", "choices": ["good", "so-so"], "length_normalized": True}

    _, details = make_bench().run(params=params)

    # The fake model's log-likelihood is -1 for each token.
    told = {"probabilities": {"good": 0.5, "so-so": 0.5}, "scores": {"good": -1.0, "so-so": -1.0}}
    assert details == [told, told]


def test_several_answers_to_one_prompt_are_all_stored(make_bench: Make) -> None:
    rows, details = make_bench().run(params={"n": 3, "max_tokens": 8})

    for row, detail in zip(rows, details, strict=True):
        assert isinstance(detail, dict)
        completions = detail["completions"]
        assert len(completions) == 3
        assert row.text == completions[0]["text"]
        assert row.completion_tokens == sum(one["tokens"] for one in completions)


def test_a_prompt_that_is_no_chat_is_read_without_a_template_or_a_system_prompt(
    make_bench: Make, database: Database
) -> None:
    prompts = [NewPrompt(((RAW, "go on"),)), NewPrompt(((RAW, "x" * 5_000),))]
    with database.begin() as conn:
        stored = intake.create_batch(conn, jobs.new_batch(system="be brief"), prompts)

    rows, _ = make_bench().work(stored)

    assert [(row.text, row.error_code) for row in rows] == [
        ("echo: go on", None),
        (None, "context_length_exceeded"),
    ]
    assert rows[0].prompt_tokens == len("go on")


def test_tokens_are_counted_without_the_engine_and_without_an_admission(
    make_bench: Make, database: Database
) -> None:
    prompts = [NewPrompt(((RAW, "one two"),)), NewPrompt(((RAW, "x" * 5_000),))]
    asked: dict[str, object] = {"mode": "count", "choices": ["no", "yes"], "use_cache": True}
    with database.begin() as conn:
        stored = intake.create_batch(conn, jobs.new_batch(params=asked), prompts)
    bench = make_bench()

    rows, details = bench.work(stored)

    assert [(row.text, row.error_code) for row in rows] == [
        ("", None),
        (None, "context_length_exceeded"),
    ]
    assert [(row.prompt_tokens, row.completion_tokens) for row in rows] == [(7, 0), (5_000, 0)]
    assert details == [{"choices": {"no": [*b"no"], "yes": [*b"yes"]}}, None]
    assert bench.shards.engine.stats().steps == 0
    assert bench.shards.reuse.stats() == {"cache_hits": 0, "cache_misses": 0, "saved_tokens": 0}
    with database.begin() as conn:
        attempts = conn.execute(text("SELECT sum(attempts) FROM requests")).scalar_one()
    assert attempts == 0


def test_prompts_of_one_shard_are_asked_each_for_itself(
    make_bench: Make, database: Database
) -> None:
    score: dict[str, object] = {"mode": "score", "choices": ["good", "bad"]}
    asked: list[dict[str, object] | None] = [
        {"n": 2},
        score,
        None,
        {"max_tokens": 1},
        {"mode": "count"},
    ]
    prompts = [NewPrompt((("user", "one two three"),), params=one) for one in asked]
    with database.begin() as conn:
        batch = intake.create_batch(conn, jobs.new_batch(params={"max_tokens": 2}), prompts)
    shards = make_bench().shards

    (lease,) = shards.claim(Lane.BULK)
    shards.run(lease)

    with database.begin() as conn:
        rows = reading.results(conn, batch.id, 0, 9)
        details = reading.details(conn, batch.id, 0, 9)
    assert [row.error_code for row in rows] == [None] * 5
    assert json.loads(details[0]).keys() == {"completions"}
    assert json.loads(details[1]).keys() == {"probabilities", "scores"}
    assert rows[1].text in ("good", "bad")
    assert details.keys() == {0, 1}
    assert [row.completion_tokens for row in rows[2:]] == [2, 1, 0]


def test_a_chat_that_was_too_long_says_how_many_turns_were_dropped(
    make_bench: Make, database: Database
) -> None:
    bench = make_bench()
    for number in range(4):  # the fake model reads 4,096 bytes
        say(database, "talk", f"{number} {'word ' * 250}")
        (lease,) = bench.shards.claim(Lane.EXPRESS)
        bench.shards.run(lease)
    with database.begin() as conn:
        batches = conn.execute(text("SELECT batch_id FROM messages ORDER BY created_at")).scalars()
        found = [reading.details(conn, batch, 0, 1).get(0) for batch in batches]

    assert found[:3] == [None, None, None]
    assert json.loads(str(found[3])) == {"dropped_turns": 1}


class Strange(FakeCodec):
    """Has no tokens for one label, refuses another, and breaks at a third."""

    def encode_answer(self, text: str) -> tuple[int, ...]:
        if text == "refused":
            raise InvalidRequest("This model's tokenizer cannot write 'refused'.")
        if text == "broken":
            raise RuntimeError(text)
        return () if text == "nothing" else super().encode_answer(text)


@pytest.mark.parametrize(
    ("label", "reason"),
    [
        ("nothing", "The model's tokenizer has no tokens for one of the choices."),
        ("refused", "This model's tokenizer cannot write 'refused'."),
    ],
)
def test_labels_that_the_tokenizer_cannot_write_fail_the_rows_with_the_reason(
    make_bench: Make, label: str, reason: str
) -> None:
    rows, _ = make_bench(Strange()).run(params={"mode": "score", "choices": ["good", label]})

    assert {(row.error_code, row.error_message) for row in rows} == {("invalid_request", reason)}


def test_a_job_whose_time_ends_leaves_the_engine_and_is_not_claimed_again(
    make_bench: Make, database: Database
) -> None:
    bench = make_bench(speed=0.2)  # five seconds to the first token
    batch = jobs.store(database, 2, expires_in=0.5)
    (lease,) = bench.shards.claim(Lane.BULK)
    began = time.monotonic()

    summary = bench.shards.run(lease)

    assert summary["returned"] == 2
    figures = {"rows_per_step", "padded_share", "padded_share_keys", "kv_share", "queue_age"}
    assert figures < summary.keys()
    assert time.monotonic() - began < 30
    assert bench.shards.claim(Lane.BULK) == []
    with database.begin() as conn:
        lifecycle.expire_due(conn)
        lifecycle.close_open(conn)
        lifecycle.finalize(conn)
        codes = {row.error_code for row in reading.results(conn, batch.id, 0, 9)}
    assert codes == {"expired"}


def test_a_chat_is_admitted_by_its_claim_and_a_suspect_by_the_engine_alone(
    make_bench: Make, database: Database
) -> None:
    bench = make_bench()
    jobs.store(database, 1, lane=Lane.EXPRESS)
    jobs.store(database, 1, lane=Lane.EXPRESS)
    with database.begin() as conn:
        conn.execute(text("UPDATE shards SET alone = true WHERE id = (SELECT max(id) FROM shards)"))

    plain, suspect = bench.shards.claim(Lane.EXPRESS)

    assert (plain.shard.alone, suspect.shard.alone) == (False, True)
    assert states(database, [plain, suspect]) == ["running", "pending"]
    for lease in (plain, suspect):
        bench.shards.run(lease)
    assert states(database, [plain, suspect]) == ["done", "done"]


def states(database: Database, leases: Sequence[Lease]) -> list[str]:
    query = text("SELECT state FROM requests WHERE shard_id = :id")
    with database.begin() as conn:
        return [conn.execute(query, {"id": lease.shard.id}).scalar_one() for lease in leases]


def test_a_shard_that_was_lost_makes_room_for_the_next_until_the_drain(
    database: Database, make_bench: Make
) -> None:
    shards = make_bench(speed=1.0).shards
    jobs.store(database, 3 * SHARD_SIZE)
    held = [lease for _ in range(2) for lease in shards.claim(Lane.BULK)]
    for lease in held:
        shards.begin(lease)
    shards.look_for_room()
    assert (len(held), shards.claim(Lane.BULK), shards.room.is_set()) == (2, [], False)

    shards.lose(held[0])
    shards.finish(held[0])
    assert shards.room.is_set()

    shards.drain()
    shards.look_for_room()
    assert not shards.room.is_set()


def test_a_shard_that_is_refused_as_a_whole_leaves_room_for_the_next(make_bench: Make) -> None:
    bench = make_bench(Strange())
    params = {"mode": "score", "choices": ["good", "nothing"]}

    bench.run(params=params)

    assert bench.shards.room.is_set()


def test_a_shard_that_cannot_be_begun_takes_no_other_of_its_claim_along(
    make_bench: Make, database: Database
) -> None:
    bench = make_bench(Strange())
    for label in ("good", "broken", "bad"):
        params = {"mode": "score", "choices": ["good", label]}
        jobs.store(database, 1, lane=Lane.EXPRESS, params=params)
    claimed = bench.shards.claim(Lane.EXPRESS)

    with pytest.raises(RuntimeError, match="broken"):
        run_all(bench.shards, claimed)

    assert bench.held.all() == []
    with database.begin() as conn:
        shards = conn.execute(text("SELECT state FROM shards ORDER BY id")).scalars().all()
        attempts = conn.execute(text("SELECT attempts FROM requests ORDER BY shard_id"))
        assert attempts.scalars().all()[2] == 0
    assert shards == ["done", "leased", "ready"]  # the second is free when its lease runs out


class Fast(Pace):
    """Ends two hundred rows a second."""

    @property
    def rate(self) -> float:
        return 200.0


def test_a_fast_engine_gets_as_many_shards_as_it_ends_in_a_second(
    make_bench: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("workers.shards.Pace", Fast)
    bench = make_bench()
    for owner in ("a", "b"):
        jobs.store(bench.database, 4 * SHARD_SIZE, owner=owner)

    claims = [bench.shards.claim(Lane.BULK) for _ in range(2)]
    for lease in claims[0]:
        bench.shards.leave(lease)
    claims.append(bench.shards.claim(Lane.BULK))

    # 200 rows at once and no more meanwhile, and a turn for each owner.
    owners = [[lease.shard.owner for lease in leases] for leases in claims]
    assert owners == [["a"] * 3, [], ["b"] * 3]
    for lease in claims[2]:
        bench.shards.leave(lease)


@pytest.mark.parametrize("answers", [True, False])
def test_bulk_is_claimed_by_messages_however_rare_they_are_as_long_as_they_come(
    make_bench: Make, answers: bool
) -> None:
    bench = make_bench(speed=50)
    batch = jobs.store(bench.database, 5 * SHARD_SIZE)
    posted = Jobs(bench.database, jobs.OWNER)
    shares = LaneShares(LaneSizes(rows=64, express_rows=8))
    claimed: list[Lease] = []
    threads: list[threading.Thread] = []

    def message() -> None:
        shares.message_came()
        leases = bench.shards.claim(Lane.BULK)
        claimed.extend(leases)
        run_all(bench.shards, leases)

    def wake() -> None:
        if answers:
            threads.append(threading.Thread(target=message))
            threads[-1].start()

    wake()  # as the dispatcher does
    if answers:
        assert bench.shards.claimed.wait(5)
    poller = Poller(bench.shards, shares, 0.05, wake=wake)  # seconds; a shard takes longer
    poller.start()
    try:
        until("the job is done", lambda: posted.done(batch.id) == 5 * SHARD_SIZE)
    finally:
        poller.stop()
    for thread in threads:
        thread.join()
    assert len(claimed) == (5 if answers else 0)
    assert posted.get(batch.id).completed == 5 * SHARD_SIZE


def test_only_a_claim_that_the_database_answered_counts_as_one(make_bench: Make) -> None:
    shards = make_bench().shards
    shards.drain()
    assert shards.claim(Lane.BULK) == []
    assert not shards.claimed.is_set()
