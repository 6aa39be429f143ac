"""What a library's table has to offer to be a source and a sink."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol

from penstock.annotation.records import Column, Row


class Frame(Protocol):
    """A table in memory. Its constructor raises InvalidRequest for columns without unique names."""

    @property
    def columns(self) -> Sequence[str]: ...

    @property
    def length(self) -> int:
        """Rows."""

    @property
    def schema(self) -> Any:
        """Arrow's, where each `raw` is a `Spot`; else None."""

    def rows(self) -> Iterator[tuple[Row, object]]:
        """Each in plain Python, with its `raw`."""

    def with_columns(
        self, added: Sequence[Column], cells: Mapping[str, Sequence[object]]
    ) -> object:
        """A table of the same type, this one unchanged."""
