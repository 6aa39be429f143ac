"""Outcomes of a batch with what their lines asked for, page by page. Reads only."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, select, text

from storage.reading import RESULT_COLUMNS
from storage.records import Params, ResultRow
from storage.tables import results

_ASKED = text("""
    SELECT position, custom_id, CAST(params AS text) AS params, messages IS NULL AS refused
    FROM requests WHERE batch_id = :id AND position = ANY(CAST(:positions AS int[]))
""")


@dataclass(frozen=True, slots=True)
class OutputLine:
    """One stored outcome, and whose it is."""

    row: ResultRow
    detail: Mapping[str, object] | None
    created: int  #: seconds since 1970
    custom_id: str | None
    asked: Params
    refused: bool  #: the line was wrong, and never ran


def lines(
    conn: Connection, batch_id: str, first: int, stop: int, *, good: bool
) -> list[OutputLine]:
    """Results, or errors where not `good`, of positions `first` to `stop`, as far as they are
    there, in order."""
    position = results.c.position
    rows = conn.execute(
        select(*RESULT_COLUMNS, results.c.detail, results.c.created_at)
        .where(results.c.batch_id == batch_id, position >= first, position < stop)
        .where(results.c.error_code.is_(None) if good else results.c.error_code.is_not(None))
        .order_by(position)
    ).all()
    asked = _asked(conn, batch_id, [row.position for row in rows])
    return [
        OutputLine(
            ResultRow(*row[: len(RESULT_COLUMNS)]),
            row.detail,
            int(row.created_at.timestamp()),
            *asked[row.position],
        )
        for row in rows
    ]


def _asked(
    conn: Connection, batch_id: str, positions: Sequence[int]
) -> dict[int, tuple[str | None, Params, bool]]:
    """By position: the line's name, its parameters, and whether it was refused. A query of its own,
    since a join of two ranges is read as their product while PostgreSQL knows neither."""
    found = conn.execute(_ASKED, {"id": batch_id, "positions": list(positions)})
    params: dict[str | None, Params] = {None: {}}
    asked = {}
    for row in found:
        if row.params not in params:
            params[row.params] = json.loads(row.params)
        asked[row.position] = (row.custom_id, params[row.params], row.refused)
    return asked
