"""What the GPU workers say of themselves: one row per slot. Decides nothing."""

from __future__ import annotations

from collections.abc import Mapping

from sqlalchemy import Connection, cast, extract, func, select
from sqlalchemy.dialects.postgresql import JSONB, insert

from storage.records import WorkerRecord
from storage.tables import workers as workers_table


def register(
    conn: Connection, slot: str, boot_id: str, model: str, info: Mapping[str, object]
) -> None:
    """A worker has booted; it takes the slot's row over from an earlier boot."""
    fresh = {"boot_id": boot_id, "model": model, "info": dict(info), "stats": {}}
    conn.execute(
        insert(workers_table)
        .values(slot=slot, **fresh)
        .on_conflict_do_update(
            index_elements=["slot"], set_={**fresh, "started_at": func.now(), "beat_at": func.now()}
        )
    )


def describe(conn: Connection, slot: str, boot_id: str, more: Mapping[str, object]) -> None:
    """Add to what a worker said of itself when it registered."""
    columns = workers_table.c
    conn.execute(
        workers_table.update()
        .where(columns.slot == slot, columns.boot_id == boot_id)
        .values(info=columns.info.op("||")(cast(dict(more), JSONB)))
    )


def beat(conn: Connection, slot: str, boot_id: str, stats: Mapping[str, object]) -> bool:
    """Still alive. False: a newer boot has taken the slot over."""
    updated = conn.execute(
        workers_table.update()
        .where(workers_table.c.slot == slot, workers_table.c.boot_id == boot_id)
        .values(stats=dict(stats), beat_at=func.clock_timestamp())
    )
    return updated.rowcount == 1


def workers(conn: Connection, max_age: float = 30.0) -> list[WorkerRecord]:
    """Workers that were heard of in the last `max_age` seconds, by slot."""
    columns = workers_table.c
    age = extract("epoch", func.clock_timestamp() - columns.beat_at).label("age")
    rows = conn.execute(
        select(columns.slot, columns.boot_id, columns.model, columns.info, columns.stats, age)
        .where(columns.beat_at > func.now() - func.make_interval(0, 0, 0, 0, 0, 0, max_age))
        .order_by(columns.slot)
    )
    return [
        WorkerRecord(
            slot=row.slot,
            boot_id=row.boot_id,
            model=row.model,
            info=row.info,
            stats=row.stats,
            age=max(0.0, float(row.age)),
        )
        for row in rows
    ]
