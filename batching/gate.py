"""Asks for the leave to run rows, so that a process that dies in a step leaves a trace on them.
Knows who may run, not who should."""

from __future__ import annotations

from collections.abc import Callable, Sequence, Set

from penstock.errors import Unavailable
from penstock.telemetry import get_logger

log = get_logger(__name__)

OnAdmit = Callable[[Sequence[str]], Set[str]]

FIRST_BACKOFF = 0.05  #: seconds, doubled each time that `on_admit` is unavailable
LONGEST_BACKOFF = 2.0


def admit_all(ids: Sequence[str]) -> Set[str]:
    """Admission that needs no one's leave."""
    return set(ids)


class Gate:
    """`on_admit` makes the admission of ids durable and returns those that may run."""

    def __init__(self, on_admit: OnAdmit) -> None:
        self._on_admit = on_admit
        self._next_backoff = FIRST_BACKOFF
        self.backoff = 0.0  #: seconds to wait after it was unavailable

    def refused(self, ids: Sequence[str]) -> Set[str] | None:
        """Those that may not run. None: try again after `backoff`."""
        try:
            refused = set(ids) - self._on_admit(ids) if ids else set()
        except Exception as error:
            self.backoff = self._next_backoff
            self._next_backoff = min(2 * self._next_backoff, LONGEST_BACKOFF)
            known = isinstance(error, Unavailable)
            log.warning("admission.postponed", seconds=self.backoff, exc_info=not known)
            return None
        self._next_backoff = FIRST_BACKOFF
        return refused
