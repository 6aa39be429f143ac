"""How much work may wait: bounds for each owner and for all together, by lane. Counted from the
jobs that are live, which the bounds themselves keep few; never from requests. Knows no HTTP."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

from sqlalchemy import Connection, text

from penstock.errors import LimitReached, Overloaded, TooLarge
from storage.states import Lane

#: Of a transaction that counts exactly: a class of advisory locks, with the lane's number in it.
_LOCK_CLASS: Final = 0x51554F54  # "QUOT"
#: Seconds that a refused client is told to wait, at least, at most, and where nothing runs yet.
_SOONEST, _LATEST, _UNKNOWN = 1, 60, 10

# In the order of the index of live jobs. A job's bytes count by the share of its prompts that are
# open. One job more than there may be is read, and no further: so many are too many anyway.
_COUNT = text("""
    SELECT count(*) AS jobs,
           coalesce(sum(open), 0) AS prompts,
           coalesce(sum(bytes * open / total), 0) AS bytes,
           count(*) FILTER (WHERE mine) AS own_jobs,
           coalesce(sum(open) FILTER (WHERE mine), 0) AS own_prompts,
           coalesce(sum(bytes * open / total) FILTER (WHERE mine), 0) AS own_bytes,
           coalesce(sum(total - open), 0) AS done,
           extract(epoch FROM clock_timestamp() - min(started_at)) AS seconds
    FROM (
        SELECT total, bytes, started_at, total - completed - failed AS open, owner = :owner AS mine
        FROM batches
        WHERE lane = :lane AND status IN ('queued', 'in_progress')
        ORDER BY expires_at LIMIT :most
    ) live
""")
_LOCK = text("SELECT pg_advisory_xact_lock(:class, :lane)")


@dataclass(frozen=True, slots=True)
class Amount:
    """Work that waits or runs: `bytes` of prompts as they are stored."""

    jobs: int
    prompts: int
    bytes: int

    def __add__(self, other: Amount) -> Amount:
        return Amount(
            self.jobs + other.jobs, self.prompts + other.prompts, self.bytes + other.bytes
        )


_NONE: Final = Amount(0, 0, 0)


@dataclass(frozen=True, slots=True)
class Limits:
    """Of one lane."""

    owner: Amount
    total: Amount


@dataclass(frozen=True, slots=True)
class _Backlog:
    """The live jobs of a lane, and the prompts a second that they have come on by."""

    own: Amount
    all: Amount
    rate: float


def check(conn: Connection, limits: Limits, owner: str, lane: Lane, more: Amount) -> None:
    """Would `more` fit? Waits for nobody, so that what surely has no room costs little.

    Raises `LimitReached` for the owner's bound, `Overloaded` for that of all, and `TooLarge` where
    `more` fits no empty queue either.
    """
    _judge(_Backlog(_NONE, _NONE, 0.0), limits, more)  # first what no waiting would change
    _judge(_count(conn, limits, owner, lane), limits, more)


def settle(conn: Connection, limits: Limits, owner: str, lane: Lane) -> None:
    """The last word on what this transaction has stored; raises as `check` does, and the caller
    rolls back. From half of a bound on, posts of a lane pass here one by one until they commit, so
    that together they cannot pass it. Below, nobody waits: posts of one moment slip over a bound
    only if they hold more than half of it among themselves."""
    backlog = _count(conn, limits, owner, lane)
    if not (_fits(backlog.own, limits.owner, 2) and _fits(backlog.all, limits.total, 2)):
        number = list(Lane).index(lane)
        conn.execute(_LOCK, {"class": _LOCK_CLASS, "lane": number})
        backlog = _count(conn, limits, owner, lane)
    _judge(backlog, limits, _NONE)


def _count(conn: Connection, limits: Limits, owner: str, lane: Lane) -> _Backlog:
    row = conn.execute(_COUNT, {"owner": owner, "lane": lane, "most": limits.total.jobs + 1}).one()
    return _Backlog(
        own=Amount(row.own_jobs, int(row.own_prompts), int(row.own_bytes)),
        all=Amount(row.jobs, int(row.prompts), int(row.bytes)),
        rate=float(row.done) / max(float(row.seconds or 0), 1.0),
    )


def _judge(backlog: _Backlog, limits: Limits, more: Amount) -> None:
    own, all_together = backlog.own + more, backlog.all + more
    for name, held, bound in _parts(own, limits.owner):
        if held > bound and own.jobs == 1:
            raise TooLarge(f"You may have {bound} queued {name}; this one job has {held}.")
        if held > bound:
            raise LimitReached(
                f"Your limit of {bound} queued {name} is reached: with these it would be {held}.",
                retry_after=_wait(held, bound, own, backlog.rate),
            )
    for name, held, bound in _parts(all_together, limits.total):
        if held > bound:
            raise Overloaded(
                f"The service's limit of {bound} queued {name} is reached.",
                retry_after=_wait(held, bound, all_together, backlog.rate),
            )


def _parts(held: Amount, bound: Amount) -> tuple[tuple[str, int, int], ...]:
    return (
        ("prompts", held.prompts, bound.prompts),
        ("bytes", held.bytes, bound.bytes),
        ("jobs", held.jobs, bound.jobs),
    )


def _fits(held: Amount, bound: Amount, times: int) -> bool:
    return all(times * amount <= most for _, amount, most in _parts(held, bound))


def _wait(held: int, bound: int, all_of_it: Amount, rate: float) -> int:
    """Seconds until what is too much is done, at the rate at which live jobs have come on."""
    if rate <= 0:
        return _UNKNOWN
    prompts = all_of_it.prompts * (held - bound) / held
    return min(max(math.ceil(prompts / rate), _SOONEST), _LATEST)
