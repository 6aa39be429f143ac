"""Jobs to store in tests, and the short ways to store and finish them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from sqlalchemy import text

from penstock.errors import PromptError
from penstock.ids import new_id
from storage import intake, leases, lifecycle
from storage.database import Database
from storage.records import Batch, ClaimedShard, CommitReceipt, NewBatch, NewPrompt, Outcome
from storage.states import Lane

OWNER = "default"
MODEL = "fake"
LEASE = 60.0


def new_batch(**changes: object) -> NewBatch:
    batch = NewBatch(
        id=new_id("batch"),
        owner=OWNER,
        kind="batch",
        model=MODEL,
        lane=Lane.BULK,
        params={"max_tokens": 8},
    )
    return replace(batch, **changes)  # type: ignore[arg-type]


def prompts(count: int) -> Iterator[NewPrompt]:
    return (NewPrompt((("user", f"prompt {number}"),)) for number in range(count))


def bad_prompt() -> NewPrompt:
    return NewPrompt(None, PromptError.EMPTY, "The prompt is empty.")


def store(database: Database, count: int = 1, **changes: object) -> Batch:
    """A stored job of `count` prompts."""
    with database.begin() as conn:
        return intake.create_batch(conn, new_batch(**changes), prompts(count))


def claim(
    database: Database,
    slot: str = "slot",
    boot_id: str = "boot",
    *,
    lane: Lane = Lane.BULK,
    limit: int = 1,
    rows: int = 1_000_000,
    after: str = "",
    again: bool = False,
    lease: float = LEASE,
) -> list[ClaimedShard]:
    with database.begin() as conn:
        return leases.claim(
            conn,
            model=MODEL,
            lane=lane,
            slot=slot,
            boot_id=boot_id,
            lease=lease,
            limit=limit,
            rows=rows,
            after=after,
            again=again,
        )


def admit(database: Database, shard: ClaimedShard, positions: Sequence[int] | None = None) -> bool:
    with database.begin() as conn:
        return leases.admit(conn, shard.id, shard.epoch, _positions(shard, positions))


def commit(
    database: Database, shard: ClaimedShard, positions: Sequence[int] | None = None
) -> CommitReceipt:
    """Good answers for these positions, or for all of the shard."""
    outcomes = [answer(position) for position in _positions(shard, positions)]
    with database.begin() as conn:
        return leases.commit(conn, shard.id, shard.epoch, outcomes, LEASE)


def answer(position: int) -> Outcome:
    return Outcome(position, f"answer {position}", "stop", prompt_tokens=3, completion_tokens=2)


def reused(position: int) -> Outcome:
    """The answer to an equal prompt."""
    return replace(answer(position), from_cache=True)


def failure(position: int, code: str = PromptError.TOO_LONG) -> Outcome:
    return Outcome(position, None, None, 5, 0, code, "The prompt has too many tokens.")


def run_all(database: Database) -> int:
    """Claim, admit and answer whatever is ready. Returns the number of answers."""
    answered = 0
    for lane in Lane:
        while claimed := claim(database, lane=lane, limit=16):
            for shard in claimed:
                admit(database, shard)
                answered += commit(database, shard).stored
    return answered


def end(database: Database) -> list[str]:
    """Finalize whatever has all its outcomes."""
    with database.begin() as conn:
        return lifecycle.finalize(conn)


def await_blocked(database: Database) -> None:
    """Until a connection of this database waits for a lock."""
    waiting = text(
        "SELECT count(*) FROM pg_stat_activity"
        " WHERE datname = current_database() AND wait_event_type = 'Lock'"
    )
    for _ in range(10_000):
        with database.begin() as conn:
            if conn.execute(waiting).scalar_one():
                return
    raise AssertionError("nobody waits")


def _positions(shard: ClaimedShard, positions: Sequence[int] | None) -> list[int]:
    if positions is None:
        return [request.position for request in shard.requests]
    return list(positions)
