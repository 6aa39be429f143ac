"""The names of columns, as texts that differ. Knows no library."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from penstock.errors import InvalidRequest


def texts(names: Iterable[object], where: str = "The table") -> tuple[str, ...]:
    """Raises InvalidRequest for two of one name."""
    found = tuple(str(name) for name in names)
    for name, times in Counter(found).items():
        if times > 1:
            raise InvalidRequest(f"{where} has two columns named {name!r}.", param="input")
    return found
