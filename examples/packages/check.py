"""The fields of an annotated table beside the truth. Knows the table's columns; no service."""

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from rich import box
from rich.table import Table

from penstock.annotation.records import Interval
from penstock.annotation.trust.intervals import wilson


@dataclass(frozen=True)
class Figures:
    """Rows, those of them with a valid document, and by field how many are right."""

    rows: int
    valid: int
    right: Mapping[str, int]

    def share(self, field: str) -> Interval:
        """Of all rows, 95 %: a row without a document is wrong in every field."""
        return wilson(self.right[field], self.rows)


def figures(labelled: Path) -> Figures:
    """Compare each field with the truth that stands in the same row."""
    rows = valid = 0
    right: Counter[str] = Counter()
    with labelled.open(encoding="utf-8") as file:
        for row in map(json.loads, file):
            rows += 1
            valid += row["error"] is None
            for field, truth in row["truth"].items():
                right[field] += row["error"] is None and row[field] == truth
    return Figures(rows, valid, right)


def shown(found: Figures) -> Table:
    """A line for each field."""
    title = f"{found.valid:,} of {found.rows:,} documents are valid"
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for name in ("field", "right", "95 %"):
        table.add_column(name, justify="left" if name == "field" else "right")
    for field in found.right:
        share = found.share(field)
        table.add_row(field, f"{share.middle:.0%}", f"{share.low:.0%} to {share.high:.0%}")
    return table
