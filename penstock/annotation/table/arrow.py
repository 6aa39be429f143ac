"""Arrow's types and batches: rows out of them, and added columns beside them. Knows no file."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from penstock.annotation.records import Column, Row
from penstock.annotation.table.cells import of_type, plain, repaired
from penstock.annotation.table.extras import needed
from penstock.annotation.table.shapes import ListOf, Scalar, Shape, Struct, column_shape, fitted
from penstock.errors import InvalidRequest

#: A value as it is put into a column of Arrow.
Convert = Callable[[object], object]


def arrow() -> Any:
    return needed("pyarrow", "This table")


def rows_of(batch: Any, where: str) -> Iterator[Row]:
    """The rows of a record batch in plain Python."""
    names = batch.schema.names
    columns = [_plain_column(batch.column(at), names[at], where) for at in range(len(names))]
    for cells in zip(*columns, strict=True):
        yield dict(zip(names, cells, strict=True))


def _plain_column(column: Any, name: str, where: str) -> list[object]:
    pa = arrow()
    kind = column.type
    try:
        if pa.types.is_timestamp(kind) and kind.unit == "ns":
            # Python's own dates end at microseconds.
            column = column.cast(pa.timestamp("us", kind.tz), safe=False)
        values: list[object] = column.to_pylist()
    except UnicodeDecodeError:
        raise InvalidRequest(
            f"{where}, column {name!r}: a cell is not UTF-8; write the file anew with UTF-8 text.",
            param="input",
        ) from None
    except (ValueError, OverflowError, pa.ArrowException) as error:
        raise InvalidRequest(
            f"{where}, column {name!r}: a cell of type {kind} cannot be read ({error}).",
            param="input",
        ) from None
    simple = pa.types.is_string(kind) or pa.types.is_integer(kind) or pa.types.is_boolean(kind)
    return values if simple else [plain(value) for value in values]


def column_type(column: Column, cells: Sequence[object] | None = None) -> tuple[Any, Convert]:
    """The type of an added column, and what its cells become. `cells`: all that there are."""
    shape = column_shape(column, cells)
    return shape_type(shape), lambda value: fitted(of_type(column, value), shape)


def shape_type(shape: Shape) -> Any:
    """Arrow's type for a shape; what has none is text."""
    pa = arrow()
    if isinstance(shape, ListOf):
        return pa.list_(shape_type(shape.member))
    if isinstance(shape, Struct):
        return pa.struct([(repaired(name), shape_type(inner)) for name, inner in shape.fields])
    leaves = {
        Scalar.TRUTH: pa.bool_(),
        Scalar.INTEGER: pa.int64(),
        Scalar.NUMBER: pa.float64(),
    }
    return leaves.get(shape, pa.string())


def added_array(column: Column, cells: Sequence[object]) -> tuple[Any, Any]:
    """The field and the array of an added column."""
    pa = arrow()
    kind, convert = column_type(column, cells)
    return pa.field(column.name, kind), pa.array([convert(cell) for cell in cells], kind)
