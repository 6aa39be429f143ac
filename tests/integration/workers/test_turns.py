"""Beside a huge job, another owner's small one takes as long as what is in the engine already.

A saturated engine cannot answer anybody at once: what it holds when the small job comes is older,
and is run first. So "unaffected" means that what the huge job has in the queue beyond that adds
nothing. Counted in the huge job's outcomes meanwhile, which is the work of the engine, and not in
seconds, which are the machine's.
"""

from __future__ import annotations

from storage.database import Database
from storage.tables import SHARD_SIZE
from tests.support.waiting import until
from tests.support.workers import Jobs, Processes

ROWS = 64
#: A worker that ends less than two shards a second claims one while it has fewer than one more than
#: its rows, so it holds two more at most; and while the small job's prompts run, so do others.
HELD = ROWS + 2 * SHARD_SIZE
PROMISED = HELD + ROWS
HUGE = 6_000


def test_ten_prompts_end_with_what_the_engine_held_when_they_came_within_a_fifth(
    database: Database, processes: Processes
) -> None:
    first, second = Jobs(database, "first"), Jobs(database, "second")
    huge = first.post(HUGE)
    processes.start("dispatch")
    processes.start(
        "worker",
        PENSTOCK_MODEL__MAX_ROWS=str(ROWS),
        PENSTOCK_MODEL__FAKE_TOKENS_PER_SECOND="10",
    )
    until("the engine is full of the huge job", lambda: first.done(huge) > 2 * ROWS)

    before = first.done(huge)
    small = second.post(10)
    until("the small job ends", lambda: second.done(small) == 10)
    meanwhile = first.done(huge) - before

    assert meanwhile <= 1.2 * PROMISED < HUGE / 10
    assert not first.finished(huge)
