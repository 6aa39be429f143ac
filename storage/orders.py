"""Which model a worker shall serve instead of its configured one: a column of its slot's row, which
outlives the process. Knows no model."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import Connection, text

_ORDER = text("""
    UPDATE workers SET wanted = :model, load_tries = 0, load_error = NULL WHERE slot = :slot
""")
_WANTED = text("SELECT wanted FROM workers WHERE slot = :slot")
_ATTEMPT = text("""
    UPDATE workers SET load_tries = load_tries + 1 WHERE slot = :slot AND wanted IS NOT NULL
    RETURNING wanted, load_tries
""")
_LOADED = text("UPDATE workers SET load_tries = 0 WHERE slot = :slot AND load_tries > 0")
_GIVE_UP = text("""
    UPDATE workers SET wanted = NULL, load_tries = 0, load_error = :reason
    WHERE slot = :slot AND wanted = :model
""")
_ERRORS = text("SELECT load_error FROM workers WHERE slot = :slot")

# Also of a worker that is away to load it, which may take long.
_INSTEAD = text("""
    SELECT wanted FROM workers
    WHERE wanted IS NOT NULL AND beat_at > now() - interval '1h'
      AND NOT EXISTS (
          SELECT FROM workers w
          WHERE coalesce(w.wanted, w.model) = :configured AND w.beat_at > now() - interval '30s'
      )
    ORDER BY beat_at DESC LIMIT 1
""")

_ABANDONED = text("""
    SELECT EXISTS (SELECT FROM workers WHERE beat_at > now() - interval '1h')
       AND NOT EXISTS (
           SELECT FROM workers
           WHERE coalesce(wanted, model) = :model AND beat_at > now() - interval '1h'
       )
""")


@dataclass(frozen=True, slots=True)
class Attempt:
    """A boot that begins to load an ordered model; `number` counts those without success."""

    model: str
    number: int


def place(conn: Connection, slot: str, model: str) -> None:
    """Order this slot's worker to serve `model`; replaces an earlier order."""
    conn.execute(_ORDER, {"slot": slot, "model": model})


def wanted(conn: Connection, slot: str) -> str | None:
    """The model that is ordered; None: the configured one."""
    return conn.execute(_WANTED, {"slot": slot}).scalar_one_or_none()


def attempt(conn: Connection, slot: str) -> Attempt | None:
    """Note that this slot's worker begins to load what is ordered."""
    row = conn.execute(_ATTEMPT, {"slot": slot}).one_or_none()
    return None if row is None else Attempt(row.wanted, row.load_tries)


def loaded(conn: Connection, slot: str) -> None:
    """The attempt was a success."""
    conn.execute(_LOADED, {"slot": slot})


def give_up(conn: Connection, slot: str, model: str, reason: str) -> None:
    """Forget the order of `model`; a newer one stays."""
    conn.execute(_GIVE_UP, {"slot": slot, "model": model, "reason": reason})


def last_error(conn: Connection, slot: str) -> str | None:
    """Why the last order was given up."""
    return conn.execute(_ERRORS, {"slot": slot}).scalar_one_or_none()


def ordered_instead(conn: Connection, configured: str) -> str | None:
    """What was ordered, where no worker serves the configured model any more."""
    return conn.execute(_INSTEAD, {"configured": configured}).scalar_one_or_none()


def is_abandoned(conn: Connection, model: str) -> bool:
    """Whether all workers that there are serve other models, or are about to."""
    return bool(conn.execute(_ABANDONED, {"model": model}).scalar_one())
