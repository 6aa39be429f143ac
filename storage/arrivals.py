"""Results of a job in the order in which they became visible, page by page. Reads only.

Each commit that stores results holds its job's row until it ends, so the numbers of `arrivals` show
up in their own order: behind the last one that was seen nothing can appear before it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, text

from storage import reading
from storage.records import ResultRow

#: Commits that are looked at for one page. One has a shard's results at most, as a rule.
_COMMITS = 256

_AFTER = text("""
    SELECT number, positions[:taken + 1:] AS positions FROM arrivals
    WHERE batch_id = :batch AND number = :number AND cardinality(positions) > :taken
    UNION ALL (
        SELECT number, positions FROM arrivals
        WHERE batch_id = :batch AND number > :number
        ORDER BY number LIMIT :commits
    )
    ORDER BY number
""")

# Of jobs from before there were numbers.
_UNNUMBERED = text("""
    SELECT position FROM results
    WHERE batch_id = :batch AND position >= :first AND position NOT IN (
        SELECT unnest(positions) FROM arrivals WHERE batch_id = :batch
    )
    ORDER BY position LIMIT :limit
""")
_ALL_NUMBERED = text("""
    SELECT b.completed + b.failed <= (
        SELECT coalesce(sum(cardinality(positions)), 0) FROM arrivals WHERE batch_id = b.id
    ) FROM batches b WHERE b.id = :batch
""")


@dataclass(frozen=True, slots=True)
class Place:
    """Behind the first `taken` results of commit `number`. `unnumbered`: behind all numbered ones,
    and this is the position that comes next."""

    number: int = 0
    taken: int = 0
    unnumbered: int | None = None


@dataclass(frozen=True, slots=True)
class Arrival:
    """One result, what it has beside its text, and the place behind it."""

    place: Place
    row: ResultRow
    detail: str | None


@dataclass(frozen=True, slots=True)
class Page:
    """Results in their order. `end` is behind all of them, and None where there is nothing more."""

    arrivals: tuple[Arrival, ...]
    end: Place | None


def after(conn: Connection, batch_id: str, place: Place, limit: int) -> Page:
    """Up to `limit` results behind a place; those of prompts that are tried again are left out."""
    found = conn.execute(
        _AFTER,
        {
            "batch": batch_id,
            "number": place.number,
            "taken": place.taken,
            "commits": min(limit, _COMMITS),
        },
    )
    places: list[tuple[int, Place]] = []
    for number, positions in found:
        before = place.taken if number == place.number else 0
        places += [
            (position, Place(number, before + at)) for at, position in enumerate(positions, start=1)
        ]
        if len(places) >= limit:
            break
    return _page(conn, batch_id, places[:limit])


def unnumbered(conn: Connection, batch_id: str, first: int, limit: int) -> Page:
    """Results that were stored before commits had numbers, by position. Reads the whole job."""
    if conn.execute(_ALL_NUMBERED, {"batch": batch_id}).scalar_one_or_none() is not False:
        return Page((), None)
    found = conn.execute(_UNNUMBERED, {"batch": batch_id, "first": first, "limit": limit})
    places = [(position, Place(unnumbered=position + 1)) for (position,) in found]
    return _page(conn, batch_id, places)


def _page(conn: Connection, batch_id: str, places: Sequence[tuple[int, Place]]) -> Page:
    if not places:
        return Page((), None)
    loaded = reading.results_at(conn, batch_id, [position for position, _ in places])
    arrivals = [
        Arrival(place, *loaded[position]) for position, place in places if position in loaded
    ]
    return Page(tuple(arrivals), places[-1][1])
