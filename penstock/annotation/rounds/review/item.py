"""One row for people to look at. Knows no tool and no file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from penstock.annotation.rounds.rows import RowId


@dataclass(frozen=True, slots=True)
class Item:
    """`shown` by the form's names, `suggested` by control; `probability` of the suggestion."""

    row: RowId
    shown: Mapping[str, str]
    suggested: Mapping[str, object]
    probability: float | None = None
