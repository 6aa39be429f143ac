"""The request that a task serves: headers for its answer, and whose rates it counts against.

One object a request or WebSocket, found from wherever the request is served, its threads included.
Knows no HTTP.
"""

from __future__ import annotations

from contextvars import ContextVar
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Rates:
    """What a caller may have in a minute; None: no bound."""

    requests: int | None = None
    tokens: int | None = None


@dataclass(slots=True)
class Current:
    """What was learned of a request on its way. `headers` go out with its answer."""

    headers: dict[str, str] = field(default_factory=dict)
    owner: str = ""
    rates: Rates = field(default_factory=Rates)


_current: ContextVar[Current | None] = ContextVar("current", default=None)


def begin() -> Current:
    """A new request begins in this task."""
    made = Current()
    _current.set(made)
    return made


def current() -> Current:
    """This task's request; outside of one, an object that nobody reads."""
    return _current.get() or Current()
