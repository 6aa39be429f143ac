"""A list of dicts as a table. Rows need not have the same columns."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from penstock.annotation.records import Column, Row
from penstock.annotation.table.cells import plain
from penstock.errors import InvalidRequest


class RowList:
    """Raises InvalidRequest for a member that is no dict."""

    schema = None

    def __init__(self, rows: list[object]) -> None:
        self._rows: list[Mapping[str, object]] = []
        names: dict[str, None] = {}
        for number, row in enumerate(rows, 1):
            if not isinstance(row, Mapping):
                raise _wrong(number, f"is no dict but a {type(row).__name__}")
            strange = next((name for name in row if not isinstance(name, str)), None)
            if strange is not None:
                raise _wrong(number, f"has a column {strange!r}; names of columns are strings")
            names.update(dict.fromkeys(row))
            self._rows.append(row)
        self.columns = tuple(names)
        self.length = len(rows)

    def rows(self) -> Iterator[tuple[Row, object]]:
        for row in self._rows:
            yield {name: plain(cell) for name, cell in row.items()}, None

    def with_columns(
        self, added: Sequence[Column], cells: Mapping[str, Sequence[object]]
    ) -> object:
        new = zip(*(cells[column.name] for column in added), strict=True)
        names = [column.name for column in added]
        return [
            {**row, **dict(zip(names, one, strict=True))}
            for row, one in zip(self._rows, new, strict=True)
        ]


def _wrong(number: int, what: str) -> InvalidRequest:
    return InvalidRequest(f"Row {number} of the table {what}.", param="table")
