"""How much may run at once, given what the device could hold so far."""

from __future__ import annotations


class Limit:
    """Halves when the device ran out of memory, and grows back by quarters."""

    def __init__(self, most: int, least: int = 1) -> None:
        self._most = most
        self._least = min(least, most)
        self.value = most

    def halve(self, failed: int) -> None:
        """`failed` were too many: less must be tried next."""
        self.value = max(self._least, min(self.value, failed) // 2)

    def recover(self) -> None:
        self.value = min(self._most, self.value + max(1, self.value // 4))
