"""The lease protocol under workers that stall, die, come back late and do everything twice, in any
order, on the real SQL: one outcome for each prompt, and never a step that is not in the tables."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from hypothesis.stateful import run_state_machine_as_test as run_machine
from sqlalchemy import Connection, Row, text

from storage import intake, leases, lifecycle
from storage.database import Database
from storage.records import ClaimedShard, NewPrompt, Outcome
from storage.states import TERMINAL_BATCH, Lane
from tests.support import jobs
from tests.support.ledger import (
    Ledger,
    check_consistent,
    check_finished,
    check_step,
    read_ledger,
)
from tests.support.postgres import PostgresServer

SLOTS = ("alpha", "beta", "gamma")
OWNERS = ("ann", "bob", "")
PROTOCOL = settings(
    max_examples=50,
    stateful_step_count=60,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)

# Shrinking a counterexample takes longer than finding none.
pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]

#: A failure and a reused answer need no admission.
OUTCOMES = (jobs.answer, jobs.failure, jobs.reused)

slots = st.sampled_from(SLOTS)
picks = st.integers(min_value=0, max_value=10_000)
some = st.sets(st.integers(min_value=0, max_value=3), max_size=4)


@pytest.fixture(scope="module")
def queue(postgres_server: PostgresServer) -> Iterator[Database]:
    with postgres_server.migrated_database() as url:
        database = Database(url)
        yield database
        database.close()


class LeaseProtocol(RuleBasedStateMachine):
    """Several workers; a lease, once given, is used again and again, also when it is long lost."""

    def __init__(self, database: Database) -> None:
        super().__init__()
        self.database = database
        self.boots = dict.fromkeys(SLOTS, 0)
        self.leases: list[ClaimedShard] = []
        with database.begin() as conn:
            conn.execute(text("DELETE FROM batches"))
        self.before = self.look()

    # What clients do

    @precondition(lambda self: self.unfinished() < 4)
    @rule(
        size=st.sampled_from([1, 2, 3, 5, 66]),
        bad=some,
        express=st.booleans(),
        priority=st.integers(-1, 1),
    )
    def post(self, size: int, bad: set[int], express: bool, priority: int) -> None:
        lane = Lane.EXPRESS if express else Lane.BULK
        prompts: list[NewPrompt] = list(jobs.prompts(size))
        for position in bad:
            if position < size:
                prompts[position] = jobs.bad_prompt()
        owner = OWNERS[size % len(OWNERS)]
        batch = jobs.new_batch(owner=owner, lane=lane, priority=priority, expires_in=3600.0)
        self.act(lambda conn: intake.create_batch(conn, batch, prompts))

    @initialize(size=st.sampled_from([1, 2, 3, 66]))
    def post_the_first(self, size: int) -> None:
        self.post(size, set(), express=False, priority=0)

    @precondition(lambda self: self.unfinished() > 1)
    @rule(pick=picks)
    def cancel(self, pick: int) -> None:
        batch_id = self.pick_batch(pick)
        owner = self.before.batches[batch_id].owner
        self.act(lambda conn: lifecycle.request_cancel(conn, owner, batch_id))

    @precondition(lambda self: self.unfinished() > 2)
    @rule(pick=picks)
    def run_out_of_time(self, pick: int) -> None:
        batch_id = self.pick_batch(pick)

        def expire(conn: Connection) -> int:
            conn.execute(
                text(
                    "UPDATE batches SET expires_at = now() - interval '1s'"
                    " WHERE id = :id AND status IN ('queued', 'in_progress')"
                ),
                {"id": batch_id},
            )
            return lifecycle.expire_due(conn)

        self.act(expire)

    # What workers do

    @precondition(lambda self: self.ready())
    @rule(slot=slots, pick=picks, limit=st.integers(1, 3), again=st.booleans(), admitted=some)
    def claim(self, slot: str, pick: int, limit: int, again: bool, admitted: set[int]) -> None:
        lane = Lane(self.ready()[pick % len(self.ready())].lane)
        given = self.act(
            lambda conn: leases.claim(
                conn,
                model=jobs.MODEL,
                lane=lane,
                slot=slot,
                boot_id=self.boot_id(slot),
                lease=jobs.LEASE,
                limit=limit,
                after=OWNERS[pick % len(OWNERS)],
                again=again,
            )
        )
        for shard in given:
            assert self.before.batches[shard.batch_id].ending is None
            assert self.before.shards[shard.id].remaining == len(shard.requests)
            positions = self.positions(shard, admitted, all_of_them=not admitted)
            assert self.act(
                partial(leases.admit, shard=shard.id, epoch=shard.epoch, positions=positions)
            )
        self.leases.extend(given)

    @precondition(lambda self: self.leases)
    @rule(pick=picks, some=some, all_of_them=st.booleans())
    def admit(self, pick: int, some: set[int], all_of_them: bool) -> None:
        shard = self.pick_lease(pick)
        stands = self.stands(shard)
        positions = self.positions(shard, some, all_of_them)
        admitted = self.act(lambda conn: leases.admit(conn, shard.id, shard.epoch, positions))
        assert admitted == stands

    @precondition(lambda self: self.leases)
    @rule(pick=picks, some=some, all_of_them=st.booleans(), make=st.sampled_from(OUTCOMES))
    def commit(
        self, pick: int, some: set[int], all_of_them: bool, make: Callable[[int], Outcome]
    ) -> None:
        shard = self.pick_lease(pick)
        positions = self.positions(shard, some, all_of_them)
        outcomes = [make(position) for position in positions]
        mine = self.stands(shard) or self.finished_by(shard)
        receipt = self.act(
            lambda conn: leases.commit(conn, shard.id, shard.epoch, outcomes, jobs.LEASE)
        )
        assert receipt.held == mine, "a stale epoch was accepted, or a good one refused"
        assert receipt.shard_done == self.finished_by(shard)

    @precondition(lambda self: self.leases)
    @rule(pick=picks)
    def release(self, pick: int) -> None:
        shard = self.pick_lease(pick)
        stands = self.stands(shard)
        running = {
            key: row.attempts
            for key, row in self.before.requests.items()
            if stands and row.shard_id == shard.id and row.state == "running"
        }
        assert self.act(lambda conn: leases.release(conn, shard.id, shard.epoch)) == stands
        for key, attempts in running.items():
            assert self.before.requests[key].attempts == attempts - 1

    @precondition(lambda self: self.leases)
    @rule()
    def heartbeat(self) -> None:
        named = [(shard.id, shard.epoch) for shard in self.leases]
        standing = {shard.id for shard in self.leases if self.stands(shard)}
        assert self.act(lambda conn: leases.held(conn, named)) == standing
        assert self.act(lambda conn: leases.heartbeat(conn, named, jobs.LEASE)) == standing

    @rule(slot=slots)
    def die_and_boot(self, slot: str) -> None:
        self.boots[slot] += 1
        boot_id = self.boot_id(slot)
        self.act(lambda conn: leases.release_slot(conn, slot, boot_id))
        assert not [
            shard
            for shard in self.before.shards.values()
            if shard.state == "leased"
            and shard.slot == slot
            and self.before.batches[shard.batch_id].ending is None
        ]

    @precondition(lambda self: self.ready())
    @rule(slot=slots, pick=picks, some=some, times=st.integers(1, 5))
    def crash_with_prompts_running(self, slot: str, pick: int, some: set[int], times: int) -> None:
        """Often, because a prompt is condemned only after five crashes."""
        for _ in range(times):
            if self.ready():
                self.claim(slot, pick, limit=1, again=False, admitted=some)
            self.act(lambda conn: _end_leases(conn, None))
            self.act(leases.reap)

    @precondition(lambda self: self.leases)
    @rule(pick=picks, all_of_them=st.booleans())
    def stall_past_the_lease(self, pick: int, all_of_them: bool) -> None:
        shard = self.pick_lease(pick)
        self.act(lambda conn: _end_leases(conn, None if all_of_them else shard.id))

    # What the dispatcher does

    @rule(limit=st.sampled_from([1, 100]))
    def reap(self, limit: int) -> None:
        self.act(lambda conn: leases.reap(conn, limit))

    @precondition(lambda self: any(batch.ending for batch in self.before.batches.values()))
    @rule(limit=st.sampled_from([1, 200]))
    def close_open(self, limit: int) -> None:
        self.act(lambda conn: lifecycle.close_open(conn, limit))

    @rule()
    def finalize(self) -> None:
        self.act(lifecycle.finalize)

    # What must hold

    @invariant()
    def everything_agrees(self) -> None:
        check_consistent(self.before)

    def teardown(self) -> None:
        """Healthy workers and a dispatcher bring everything to its end."""
        for _ in range(20):
            self.act(lambda conn: _end_leases(conn, None))
            self.act(leases.reap)
            self.act(lifecycle.close_open)
            jobs.run_all(self.database)
            self.look_again()
            self.act(lifecycle.finalize)
            if all(batch.status in TERMINAL_BATCH for batch in self.before.batches.values()):
                break
        check_consistent(self.before)
        check_finished(self.before)

    # Helpers

    def unfinished(self) -> int:
        return sum(row.status not in TERMINAL_BATCH for row in self.before.batches.values())

    def ready(self) -> list[Row[Any]]:
        return [shard for shard in self.before.shards.values() if shard.state == "ready"]

    def act(self, work: Callable[[Connection], Any]) -> Any:
        """One transaction, and the check that it made legal steps only."""
        with self.database.begin() as conn:
            answer = work(conn)
        after = self.look()
        check_step(self.before, after)
        self.before = after
        return answer

    def look(self) -> Ledger:
        with self.database.begin() as conn:
            return read_ledger(conn)

    def look_again(self) -> None:
        self.before = self.look()

    def stands(self, shard: ClaimedShard) -> bool:
        row = self.before.shards[shard.id]
        return bool(row.state == "leased" and row.epoch == shard.epoch)

    def finished_by(self, shard: ClaimedShard) -> bool:
        row = self.before.shards[shard.id]
        return bool(row.state == "done" and row.epoch == shard.epoch)

    def boot_id(self, slot: str) -> str:
        return f"{slot}-{self.boots[slot]}"

    def pick_batch(self, pick: int) -> str:
        return sorted(self.before.batches)[pick % len(self.before.batches)]

    def pick_lease(self, pick: int) -> ClaimedShard:
        """Any lease ever given, the newest ones more often."""
        newest = min(len(self.leases), 4) if pick % 3 else len(self.leases)
        return self.leases[-1 - pick // 3 % newest]

    def positions(self, shard: ClaimedShard, some: set[int], all_of_them: bool) -> list[int]:
        known = [request.position for request in shard.requests]
        return known if all_of_them else [known[index] for index in some if index < len(known)]


class LeaseProtocolWithRetry(LeaseProtocol):
    """The same, with the one way back from a final status."""

    @precondition(lambda self: self.before.batches)
    @rule(pick=picks)
    def retry_failed(self, pick: int) -> None:
        batch_id = self.pick_batch(pick)
        if self.before.batches[batch_id].status not in TERMINAL_BATCH:
            return
        with self.database.begin() as conn:
            lifecycle.retry_failed(conn, self.before.batches[batch_id].owner, batch_id)
        earlier, self.before = self.before, self.look()
        for key, result in earlier.results.items():
            if result.error_code is None or key[0] != batch_id:
                assert self.before.results[key] == result


def test_every_prompt_ends_in_one_outcome_in_any_order_of_events(queue: Database) -> None:
    run_machine(partial(LeaseProtocol, queue), settings=PROTOCOL)  # type: ignore[arg-type]


def test_the_same_with_jobs_that_are_tried_again(queue: Database) -> None:
    run_machine(partial(LeaseProtocolWithRetry, queue), settings=PROTOCOL)  # type: ignore[arg-type]


def _end_leases(conn: Connection, shard: int | None) -> None:
    conn.execute(
        text(
            "UPDATE shards SET lease_until = now() - interval '1s'"
            " WHERE state = 'leased' AND (CAST(:id AS bigint) IS NULL OR id = :id)"
        ),
        {"id": shard},
    )
