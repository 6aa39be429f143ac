"""Receivers of webhooks in the storm: a good one, and some that do what they should not. What each
was told is compared with the database afterwards."""

from __future__ import annotations

import contextlib
import json
import statistics
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import text

from storage.database import Database
from storage.states import DeliveryState
from tests.chaos.clients import FINISHED, Book
from tests.chaos.verdict import Verdict
from tests.support.receivers import Behave, Receiver, drips, floods, hangs, receiving, replies

#: `lie` takes the event and says that it failed; `flood` answers with more than anyone wants.
KINDS: Mapping[str, Behave] = {
    "good": replies(200),
    "hang": hangs,
    "drip": drips,
    "lie": replies(500),
    "flood": floods,
}
TAKING = ("good", "flood")  #: answer 200
LIMIT = 100.0  #: seconds for what is left: a killed sender's events come back after a minute
DELAY_LIMIT = 10.0  #: seconds in the median, whatever the others do

DELIVERIES = text("""
    SELECT d.payload ->> 'id' AS event, d.event AS type, d.batch_id, d.state, d.url,
           extract(epoch FROM d.ended_at - d.created_at) AS seconds
    FROM webhook_deliveries d ORDER BY d.id
""")


@dataclass(frozen=True)
class Receivers:
    """One of each kind, each on an address of its own: a host is sent two events at once."""

    by_kind: Mapping[str, Receiver]

    @property
    def urls(self) -> list[str]:
        return [receiver.url for receiver in self.by_kind.values()]

    def await_taken(self, database: Database) -> None:
        """Until those who take events have all that are there."""
        began = time.monotonic()
        while time.monotonic() < began + LIMIT:
            rows = [row for row in _deliveries(database) if self._takes(row.url)]
            if all(row.state == DeliveryState.DELIVERED for row in rows):
                return
            time.sleep(0.5)

    def judge(self, verdict: Verdict, database: Database, book: Book) -> None:
        """Every end of a job was told, or will be; nothing else was."""
        rows = _deliveries(database)
        last = {row.batch_id: row.type for row in rows}
        ended = [job for job in book.jobs.values() if job.callback and job.status in FINISHED]
        arrived: set[str] = set().union(*map(_events, self.by_kind.values()))
        verdict.figures["events recorded, arrived"] = f"{len(rows):,}, {len(arrived):,}"
        verdict.must(
            "ends without their event",
            sum(last.get(job.id) != f"batch.{job.status}" for job in ended),
        )
        verdict.must("events of no end", len(arrived - {row.event for row in rows}))
        verdict.must("events given up", sum(row.state == DeliveryState.DEAD for row in rows))
        taken = [row for row in rows if self._takes(row.url)]
        verdict.must("events not taken", sum(row.state != DeliveryState.DELIVERED for row in taken))
        verdict.must("events lost", len({row.event for row in taken} - arrived))
        times = [float(row.seconds) for row in taken if row.seconds is not None]
        if times:
            median = statistics.median(times)
            verdict.figures["end to event taken"] = f"median {median:.1f} s, of {len(times):,}"
            if median > DELAY_LIMIT:
                verdict.broken.append(f"events were late: median {median:.1f} s")

    def _takes(self, url: str) -> bool:
        return any(self.by_kind[kind].url == url for kind in TAKING)


@contextlib.contextmanager
def listening() -> Iterator[Receivers]:
    """All of them, until the block ends."""
    with contextlib.ExitStack() as stack:
        yield Receivers(
            {
                kind: stack.enter_context(receiving(behave, host=f"127.0.0.{number}"))
                for number, (kind, behave) in enumerate(KINDS.items(), start=11)
            }
        )


def _deliveries(database: Database) -> list[Any]:
    with database.begin() as conn:
        return list(conn.execute(DELIVERIES))


def _events(receiver: Receiver) -> set[str]:
    return {str(json.loads(got.body)["id"]) for got in receiver.got}
