"""The documentation of the running Python's standard library, as a table with a topic for each row.

Knows how rows are split and stored; `walk` knows how they are found. Nothing here knows of models.
"""

import csv
import hashlib
import json
import subprocess
import sys
from dataclasses import asdict, dataclass, fields
from enum import StrEnum
from functools import cache
from pathlib import Path
from typing import Annotated

import typer

from examples.stdlib.topics import TOPICS

HELDOUT_THIRD = 0  # of the hash modulo 3; Python 3.11's shutil.copytree is in another
WALK = Path(__file__).with_name("walk.py")


@dataclass(frozen=True)
class Row:
    """One documented public function, class or method."""

    name: str
    kind: str
    signature: str
    docstring: str
    summary: str
    topic: str


class Part(StrEnum):
    """What to write."""

    heldout = "heldout"
    train = "train"
    all = "all"


def _third(key: str) -> int:
    return int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "big") % 3


def part_of(docstring: str) -> str:
    """`train` or `heldout`: a third of all docstrings is held out, on any machine the same one."""
    return "heldout" if _third(docstring) == HELDOUT_THIRD else "train"


def group_of(row: Row) -> str:
    """A class with its methods, or all the functions of one module."""
    return row.name if row.kind == "class" else row.name.rpartition(".")[0]


def grouped_part_of(row: Row) -> str:
    """As `part_of`, with everything of one group on one side."""
    return "heldout" if _third("group:" + group_of(row)) == HELDOUT_THIRD else "train"


@cache
def extract() -> list[Row]:
    """Every row, in the order of `TOPICS` and then of the names; one row per distinct docstring.

    The walk runs in an interpreter of its own (`-I -S`, empty environment), so that the rows are
    those of Python as it comes, whatever this process has imported.
    """
    walk = subprocess.run(
        [sys.executable, "-I", "-S", "-X", "utf8", str(WALK)],
        input=json.dumps(TOPICS),
        capture_output=True,
        check=True,
        encoding="utf-8",
        env={},
    )
    rows: dict[str, Row] = {}
    for columns in json.loads(walk.stdout):
        rows.setdefault(columns["docstring"], Row(**columns))
    return list(rows.values())


def main(
    output: Annotated[Path, typer.Option(help="CSV file to write.")],
    part: Annotated[Part, typer.Option(help="Which rows.")] = Part.heldout,
) -> None:
    """Write the documentation of this Python's standard library as CSV."""
    rows = [row for row in extract() if part in {Part.all, part_of(row.docstring)}]
    with output.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, [field.name for field in fields(Row)])
        writer.writeheader()
        writer.writerows(asdict(row) for row in rows)
    typer.echo(f"{len(rows)} rows written to {output}", file=sys.stderr)


if __name__ == "__main__":
    typer.run(main)
