"""Receivers of webhooks that did not answer, or asked to be left alone: they rest, so that they
hold up no sender. A row for each, until it answers again."""

from __future__ import annotations

from typing import Final

from sqlalchemy import Connection, text

#: Seconds that a receiver without an answer rests, twice as long each time; the first and the most.
FIRST_REST: Final = 5.0
MOST_REST: Final = 300.0

_NO_ANSWER = text("""
    INSERT INTO webhook_receivers AS w (receiver, failures, paused_until)
    VALUES (:receiver, 1, clock_timestamp() + make_interval(secs => :first))
    ON CONFLICT (receiver) DO UPDATE
    SET failures = least(w.failures + 1, 20), paused_until = clock_timestamp()
        + make_interval(secs => least(:first * 2 ^ least(w.failures, 20), :most))
""")

_PAUSE = text("""
    INSERT INTO webhook_receivers (receiver, paused_until)
    VALUES (:receiver, clock_timestamp() + make_interval(secs => :pause))
    ON CONFLICT (receiver) DO UPDATE SET failures = 0, paused_until = excluded.paused_until
""")

_UNPAUSE = text("DELETE FROM webhook_receivers WHERE receiver = :receiver")

_FORGET = text("DELETE FROM webhook_receivers WHERE paused_until < now() - interval '1 day'")


def rest(conn: Connection, receiver: str) -> None:
    """It did not answer. It is tried again by one event when it has rested."""
    conn.execute(_NO_ANSWER, {"receiver": receiver, "first": FIRST_REST, "most": MOST_REST})


def answered(conn: Connection, receiver: str, pause: float) -> None:
    """It answered, and asks to be left alone for `pause` seconds, or 0."""
    if pause:
        conn.execute(_PAUSE, {"receiver": receiver, "pause": pause})
    else:
        unpause(conn, receiver)


def unpause(conn: Connection, receiver: str) -> None:
    """Whatever it did before, it may be sent to now."""
    conn.execute(_UNPAUSE, {"receiver": receiver})


def forget_old(conn: Connection) -> None:
    """Of those that nothing is sent to any more nothing is kept."""
    conn.execute(_FORGET)
