"""The tools that people review with, by name. Knows their modules, not their files."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from penstock.annotation.rounds.review import argilla, labelstudio, sheet
from penstock.annotation.rounds.review.form import Form
from penstock.annotation.rounds.review.item import Item
from penstock.annotation.rounds.review.people import Given


class Tool(StrEnum):
    """Where people review."""

    LABELSTUDIO = "labelstudio"
    ARGILLA = "argilla"
    CSV = "csv"


@dataclass(frozen=True, slots=True)
class Exchange:
    """How a tool's files are written and read."""

    write: Callable[[Path, Iterable[Item], Form], list[Path]]
    read: Callable[[Path, Form], Iterator[Given]]


EXCHANGES = {
    Tool.LABELSTUDIO: Exchange(labelstudio.write, labelstudio.read),
    Tool.ARGILLA: Exchange(argilla.write, argilla.read),
    Tool.CSV: Exchange(sheet.write, sheet.read),
}
