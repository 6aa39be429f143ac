"""How many different things there were, in bounded memory. Knows hashes alone."""

from __future__ import annotations

from hashlib import blake2b

MOST = 1 << 16  # hashes that are kept


class Distinct:
    """Exact as long as there are no more than `MOST` different ones; then an estimate, within about
    1 %, from an even sample of the hashes (Gibbons 2001)."""

    def __init__(self, most: int = MOST) -> None:
        self._most = most
        self._level = 0  # hashes are kept that end in so many zero bits
        self._kept: dict[int, str] = {}

    def add(self, text: str, place: str) -> str | None:
        """The place where the same was first, None for a new one, or where that is not known."""
        mark = int.from_bytes(
            blake2b(text.encode("utf-8", "backslashreplace"), digest_size=8).digest()
        )
        if mark & ((1 << self._level) - 1):
            return None
        first = self._kept.setdefault(mark, place)
        if len(self._kept) > self._most:
            self._level += 1
            mask = (1 << self._level) - 1
            self._kept = {each: where for each, where in self._kept.items() if not each & mask}
        return None if first == place else first

    @property
    def exact(self) -> bool:
        return self._level == 0

    @property
    def count(self) -> int:
        return len(self._kept) << self._level
