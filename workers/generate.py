"""The Celery task: a wake-up came, so claim, run, and return a summary for Flower.

Takes a lane's name only (`messages.py` has seen to it) and reads the truth: a forged or repeated
message changes nothing.
"""

from __future__ import annotations

from celery import Celery

from penstock.errors import Unavailable
from penstock.telemetry import get_logger
from storage.states import Lane
from workers.lanes import LaneShares
from workers.lease import Lease
from workers.queues import TASK, WakeUps
from workers.shards import ShardRunner

log = get_logger(__name__)


def register(
    app: Celery, runner: ShardRunner, shares: LaneShares, wake_ups: WakeUps, model: str
) -> None:
    """Give `app` its one task."""

    @app.task(name=TASK)  # type: ignore[untyped-decorator]  # celery ships no types
    def generate(*, lane: str) -> dict[str, object]:
        return run_wake_up(Lane(lane))

    def run_wake_up(lane: Lane) -> dict[str, object]:
        shares.message_came()
        if not shares.take(lane):
            return {"claimed": 0, "reason": "no free thread in this lane"}
        more = False
        try:
            leases = runner.claim(lane)
            more = bool(leases) and lane is Lane.EXPRESS
            return run_all(runner, leases)
        except Unavailable as error:
            return {"claimed": 0, "reason": error.message}
        finally:
            shares.give_back(lane)
            if more:  # a chat that ended asks for the next; for bulk the poller tells of room
                wake_ups.send(model, lane.value)


def run_all(runner: ShardRunner, leases: list[Lease]) -> dict[str, object]:
    """Run claimed shards side by side; one summary. Where one cannot be begun, those before it are
    run to their end, and those after it go back to the queue."""
    if len(leases) == 1:
        return runner.run(leases[0])
    begun: list[Lease] = []
    try:
        for lease in leases:
            runner.begin(lease)
            begun.append(lease)
    finally:
        for lease in leases[len(begun) + 1 :]:
            runner.leave(lease)
        for lease in begun:
            runner.finish(lease)
    return {
        "claimed": len(leases),
        "ok": sum(lease.ok for lease in leases),
        "failed": sum(lease.failed for lease in leases),
    }
