"""When requests are over, the next one first. Knows no clock."""

from __future__ import annotations

from heapq import heapify, heappop, heappush

from batching.ticket import Ticket

#: Fewer than these are not worth a clean-up.
FEW = 64


class Deadlines:
    """Requests that end at a time of their own. Those that are over already leave by and by."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, Ticket]] = []
        self._added = 0
        self._over = 0

    def add(self, ticket: Ticket) -> None:
        if ticket.request.deadline is not None:
            self._added += 1
            heappush(self._heap, (ticket.request.deadline, self._added, ticket))

    def ended(self, ticket: Ticket) -> None:
        """A request is over before its time."""
        self._over += ticket.request.deadline is not None
        if self._over > FEW and self._over > len(self._heap) / 2:
            self._heap = [entry for entry in self._heap if not entry[2].over]
            heapify(self._heap)
            self._over = 0

    def pop(self, now: float) -> list[Ticket]:
        """Those whose time has come."""
        due = []
        while self._heap and self._heap[0][0] <= now:
            ticket = heappop(self._heap)[2]
            self._over -= 1  # it was so before, or will be soon
            if not ticket.over:
                due.append(ticket)
        return due

    @property
    def next(self) -> float | None:
        return self._heap[0][0] if self._heap else None

    def __len__(self) -> int:
        return len(self._heap)
