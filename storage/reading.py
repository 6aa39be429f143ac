"""Everything that only reads: jobs, results and the depth of the queue. Changes nothing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, Text, cast, func, select, text
from sqlalchemy.dialects.postgresql import JSONPATH

from storage.records import Batch, LaneDepth, ResultRow
from storage.states import BatchStatus, Lane
from storage.tables import batches
from storage.tables import results as results_table
from storage.text import is_storable

#: What a `ResultRow` is made of.
RESULT_COLUMNS = (
    results_table.c.position,
    results_table.c.text,
    results_table.c.finish_reason,
    results_table.c.error_code,
    results_table.c.error_message,
    results_table.c.prompt_tokens,
    results_table.c.completion_tokens,
    results_table.c.from_cache.is_(True),
)

#: Parameters that may give a result more than a text.
_DETAILED = (
    '$ ? (@.mode == "score" || @.n > 1 || @.logprobs == true || @.trim == true'
    ' || (@.mode == "count" && exists(@.choices)))'
)

#: Of four bytes, a prompt's; of its answers as many as they may have.
_TOKEN_ESTIMATE = text("""
    SELECT ceil(bytes / 4.0) + coalesce((params ->> 'max_tokens')::numeric, 0)
                             * coalesce((params ->> 'n')::numeric, 1)
    FROM batches WHERE id = :id
""")

# Two halves, so that each is served by its own partial index.
_LANE_DEPTHS = text("""
    SELECT model, lane,
           count(*) FILTER (WHERE state = 'ready') AS ready_shards,
           count(*) FILTER (WHERE state = 'leased') AS leased_shards,
           sum(remaining) AS open_requests,
           coalesce(
               extract(epoch FROM now() - min(created_at) FILTER (WHERE state = 'ready')), 0
           ) AS oldest_seconds
    FROM (
        SELECT model, lane, state, remaining, created_at FROM shards WHERE state = 'ready'
        UNION ALL
        SELECT model, lane, state, remaining, created_at FROM shards WHERE state = 'leased'
    ) open
    GROUP BY model, lane
    ORDER BY model, lane
""")

# Steps from lane to lane along the index, and counts the first few of each.
_READY_LANES = text("""
    WITH RECURSIVE lanes AS (
        (SELECT model, lane FROM shards WHERE state = 'ready' ORDER BY model, lane LIMIT 1)
        UNION ALL
        SELECT following.model, following.lane
        FROM lanes CROSS JOIN LATERAL (
            SELECT model, lane FROM shards
            WHERE state = 'ready' AND (model, lane) > (lanes.model, lanes.lane)
            ORDER BY model, lane LIMIT 1
        ) following
    )
    SELECT lanes.model, lanes.lane, found.ready
    FROM lanes CROSS JOIN LATERAL (
        SELECT count(*) AS ready FROM (
            SELECT FROM shards s JOIN batches b ON b.id = s.batch_id
            WHERE s.state = 'ready' AND s.model = lanes.model AND s.lane = lanes.lane
              AND s.due_at < 'infinity' AND b.ending IS NULL
            ORDER BY s.owner, s.due_at, s.priority DESC, s.id LIMIT :limit
        ) first
    ) found
    WHERE found.ready > 0
    ORDER BY lanes.lane = 'express' DESC, lanes.model
""")

_LEASED_ROWS = text("""
    SELECT model, lane, sum(remaining) AS rows FROM shards WHERE state = 'leased'
    GROUP BY model, lane
""")


def batch_columns() -> tuple[ColumnElement[Any], ...]:
    """What `batch_record` reads."""
    columns = batches.c
    return (
        columns.id,
        columns.owner,
        columns.kind,
        columns.model,
        columns.lane,
        columns.status,
        columns.priority,
        columns.total,
        columns.completed,
        columns.failed,
        columns.prompt_tokens,
        columns.completion_tokens,
        columns.metadata,
        columns.body_hash,
        columns.created_at,
        columns.started_at,
        columns.finished_at,
        columns.expires_at,
        func.clock_timestamp().label("now"),
        func.jsonb_path_exists(columns.params, cast(_DETAILED, JSONPATH)).label("detailed"),
        columns.saved_tokens,
        columns.params.contains({"stream": True}).label("streamed"),
    )


def batch_record(row: Row[Any]) -> Batch:
    """A row with `batch_columns` as a record."""
    values = {name: row._mapping[name] for name in Batch.__dataclass_fields__}
    values["lane"] = Lane(values["lane"])
    values["status"] = BatchStatus(values["status"])
    return Batch(**values)


def get_batch(conn: Connection, owner: str, batch_id: str) -> Batch | None:
    """The owner's batch, None where it is unknown, another owner's, or being deleted."""
    if not is_storable(batch_id):
        return None
    row = conn.execute(
        select(*batch_columns()).where(
            batches.c.id == batch_id, batches.c.owner == owner, ~batches.c.deleting
        )
    ).one_or_none()
    return None if row is None else batch_record(row)


def results(conn: Connection, batch_id: str, offset: int, limit: int) -> list[ResultRow]:
    """Outcomes of the prompts at positions `offset` to `offset + limit`, those that are there."""
    position = results_table.c.position
    rows = conn.execute(
        select(*RESULT_COLUMNS)
        .where(results_table.c.batch_id == batch_id, position >= offset, position < offset + limit)
        .order_by(position)
    )
    return [ResultRow(*row) for row in rows]


def results_at(
    conn: Connection, batch_id: str, positions: Sequence[int]
) -> dict[int, tuple[ResultRow, str | None]]:
    """Outcomes at these positions, those that are there, and what they have beside their text."""
    table = results_table.c
    rows = conn.execute(
        select(*RESULT_COLUMNS, cast(table.detail, Text)).where(
            table.batch_id == batch_id, table.position.in_(positions)
        )
    )
    return {row.position: (ResultRow(*row[:-1]), row[-1]) for row in rows}


def details(conn: Connection, batch_id: str, offset: int, limit: int) -> dict[int, str]:
    """By position, what results have beside their text, as JSON; those that have any."""
    table = results_table.c
    rows = conn.execute(
        select(table.position, cast(table.detail, Text)).where(
            table.batch_id == batch_id,
            table.position >= offset,
            table.position < offset + limit,
            table.detail.is_not(None),
        )
    )
    return {position: detail for position, detail in rows}


def token_estimate(conn: Connection, batch_id: str) -> int:
    """About the most tokens that a job may take, before anybody has counted them."""
    return int(conn.execute(_TOKEN_ESTIMATE, {"id": batch_id}).scalar_one())


def lane_depths(conn: Connection) -> list[LaneDepth]:
    """Open work by model and lane; a lane without any is left out."""
    return [
        LaneDepth(
            model=row.model,
            lane=Lane(row.lane),
            ready_shards=row.ready_shards,
            leased_shards=row.leased_shards,
            open_requests=row.open_requests,
            oldest_seconds=float(row.oldest_seconds),
        )
        for row in conn.execute(_LANE_DEPTHS)
    ]


def leased_rows(conn: Connection) -> dict[tuple[str, Lane], int]:
    """Requests without an outcome in shards that workers hold, by model and lane."""
    return {(row.model, Lane(row.lane)): row.rows for row in conn.execute(_LEASED_ROWS)}


def ready_lanes(conn: Connection, limit: int) -> list[tuple[str, Lane, int]]:
    """(model, lane, shards that may be claimed), express first; counted up to `limit` of each."""
    rows = conn.execute(_READY_LANES, {"limit": limit})
    return [(row.model, Lane(row.lane), row.ready) for row in rows]
