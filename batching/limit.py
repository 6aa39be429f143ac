"""How many rows may run at once, given what the device could hold so far."""

from __future__ import annotations


class RowLimit:
    """Halves when a micro-batch ran out of memory, grows back by a quarter with each that ends."""

    def __init__(self, max_rows: int) -> None:
        self._max_rows = max_rows
        self.rows = max_rows

    def halve(self, failed_rows: int) -> None:
        """`failed_rows` ran when memory ran out: less than that must be tried next."""
        self.rows = max(1, min(self.rows, failed_rows) // 2)

    def recover(self) -> None:
        self.rows = min(self._max_rows, self.rows + max(1, self.rows // 4))
