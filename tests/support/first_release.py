"""Rows as the first release stored them, in every state, and its way to write: plain SQL of that
day, since today's code knows columns that were not there. Shared by tests of migrations."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from itertools import count
from typing import Any

import psycopg2

OWNER, MODEL = "default", "fake"
#: A job by name: its status, why it ends early, and its shards as (state, states of its requests).
#: `validating` is seen in no committed row.
JOBS: dict[str, tuple[str, str | None, tuple[tuple[str, str], ...]]] = {
    "queued": ("queued", None, (("ready", "pp"),)),
    "running": ("in_progress", None, (("done", "df"), ("leased", "rp"), ("ready", "pd"))),
    "all done": ("finalizing", None, (("done", "df"),)),
    "expiring": ("finalizing", "expired", (("ready", "pp"), ("leased", "rd"))),
    "cancelling": ("cancelling", "cancelled", (("leased", "rp"), ("cancelled", "f"))),
    "completed": ("completed", None, (("done", "dd"),)),
    "failed": ("failed", None, (("done", "ff"),)),
    "cancelled": ("cancelled", "cancelled", (("cancelled", "df"),)),
    "expired": ("expired", "expired", (("cancelled", "fd"),)),
}
STATES = {"p": "pending", "r": "running", "d": "done", "f": "failed"}

_BATCH = """
    INSERT INTO batches (id, owner, kind, model, lane, status, ending, priority, params, metadata,
                         total, completed, failed, started_at, finished_at)
    VALUES (%s, %s, 'batch', %s, 'bulk', %s, %s, 0, '{"max_tokens": 8}', '{}', %s, %s, %s,
            now(), CASE WHEN %s THEN now() END)
"""
_SHARD = """
    INSERT INTO shards (batch_id, model, lane, priority, state, remaining, slot, boot_id,
                        lease_until, epoch)
    VALUES (%s, %s, 'bulk', 0, %s, %s, 'old', 'old boot',
            CASE WHEN %s THEN now() - interval '1h' END, 1)
    RETURNING id
"""
_REQUEST = """
    INSERT INTO requests (batch_id, position, shard_id, state, attempts, messages)
    VALUES (%s, %s, %s, %s, %s, '[["user", "hello"]]')
"""
_RESULT = """
    INSERT INTO results (batch_id, position, text, finish_reason, error_code, error_message)
    VALUES (%s, %s, %s, %s, %s, %s)
"""
_RUN = (
    "UPDATE shards SET state = 'leased', epoch = epoch + 1, lease_until = now() + interval '1h'"
    " WHERE batch_id = %(job)s",
    "UPDATE batches SET status = 'in_progress', started_at = now() WHERE id = %(job)s",
    "UPDATE requests SET state = 'running', attempts = 1 WHERE batch_id = %(job)s",
)
_END = (
    "INSERT INTO results (batch_id, position, text, finish_reason)"
    " VALUES (%(job)s, 0, 'kept', 'stop')",
    "UPDATE requests SET state = 'done' WHERE batch_id = %(job)s",
    "UPDATE shards SET state = 'done', remaining = 0, lease_until = NULL WHERE batch_id = %(job)s",
    "UPDATE batches SET completed = 1, status = 'completed', finished_at = now()"
    " WHERE id = %(job)s",
)


def store_every_state(url: str) -> None:
    """One job of each kind of `JOBS`, under its name."""
    with closing(psycopg2.connect(url)) as connection, connection, connection.cursor() as cursor:
        for job in JOBS:
            _store(cursor, job, *JOBS[job])


def _store(
    cursor: Any, job: str, status: str, ending: str | None, shards: tuple[tuple[str, str], ...]
) -> None:
    states = "".join(requests for _, requests in shards)
    done, failed = states.count("d"), states.count("f")
    finished = status in ("completed", "failed", "cancelled", "expired")
    counters = (len(states), done, failed, finished)
    cursor.execute(_BATCH, (job, OWNER, MODEL, status, ending, *counters))
    positions = count()
    for state, requests in shards:
        remaining = requests.count("p") + requests.count("r")
        cursor.execute(_SHARD, (job, MODEL, state, remaining, state == "leased"))
        shard = cursor.fetchone()[0]
        for letter in requests:
            position = next(positions)
            attempts = 0 if letter == "p" else 1
            cursor.execute(_REQUEST, (job, position, shard, STATES[letter], attempts))
            if letter == "d":
                cursor.execute(_RESULT, (job, position, "kept", "stop", None, None))
            elif letter == "f":
                cursor.execute(_RESULT, (job, position, None, None, "too_long", "It was kept."))


@dataclass
class Writer:
    """Goes on as a service does: stores a job, runs it, ends it, each in a transaction."""

    url: str
    finished: list[str] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    _stopping: threading.Event = field(default_factory=threading.Event)

    def run(self) -> None:
        try:
            with closing(psycopg2.connect(self.url, options="-c lock_timeout=10s")) as connection:
                while not self._stopping.is_set():
                    self._one_job(connection, f"written {len(self.finished)}")
        except psycopg2.Error as error:
            self.failures.append(str(error))

    def stop(self) -> None:
        self._stopping.set()

    def _one_job(self, connection: Any, job: str) -> None:
        with connection, connection.cursor() as cursor:
            _store(cursor, job, "queued", None, (("ready", "p"),))
        for step in (_RUN, _END):
            with connection, connection.cursor() as cursor:
                for statement in step:
                    cursor.execute(statement, {"job": job})
        self.finished.append(job)


@contextmanager
def writing(url: str) -> Iterator[Writer]:
    """A writer at work until the block ends."""
    writer = Writer(url)
    thread = threading.Thread(target=writer.run, name="first-release")
    thread.start()
    try:
        yield writer
    finally:
        writer.stop()
        thread.join(timeout=30)
