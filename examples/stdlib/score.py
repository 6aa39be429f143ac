"""Answers of an annotated table beside its gold topics: accuracy, confusion, and tables to show.

Knows the columns of the demo's CSV files; nothing of the service.
"""

import csv
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich import box
from rich.markup import escape
from rich.table import Table

from examples.stdlib.topics import LABELS

OTHER = "other"  # an answer that is no topic, or none at all
SHOWN_ANSWER = 24  # characters
LONGEST_HEADING = 8  # characters


@dataclass(frozen=True)
class Marked:
    """One row with its gold topic and what the model said."""

    name: str
    gold: str
    answer: str

    @property
    def right(self) -> bool:
        return self.answer == self.gold


@dataclass(frozen=True)
class Score:
    """All rows of a run, marked."""

    rows: Sequence[Marked]

    @property
    def accuracy(self) -> float:
        return sum(row.right for row in self.rows) / len(self.rows)

    @property
    def majority(self) -> tuple[str, float]:
        """The commonest topic, and what always saying it would reach."""
        topic, count = Counter(row.gold for row in self.rows).most_common(1)[0]
        return topic, count / len(self.rows)

    def by_topic(self) -> dict[str, tuple[float, int]]:
        """Accuracy and number of rows of each topic that occurs."""
        found: dict[str, tuple[float, int]] = {}
        for topic in LABELS:
            rows = [row.right for row in self.rows if row.gold == topic]
            if rows:
                found[topic] = (sum(rows) / len(rows), len(rows))
        return found


def read_marked(path: Path) -> Score:
    """The rows of an annotated CSV file."""
    with path.open(newline="", encoding="utf-8") as stream:
        return Score(
            [
                Marked(row["name"], row["topic"], row["answer"].strip())
                for row in csv.DictReader(stream)
            ]
        )


def sample_table(score: Score, count: int = 10) -> Table:
    """Some rows, spread evenly over all."""
    title = f"{count} of {len(score.rows):,} rows"
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for name in ("name", "gold", "answer", ""):
        table.add_column(name, overflow="fold")
    for number in range(count):
        row = score.rows[number * len(score.rows) // count]
        mark = "[green]right[/green]" if row.right else "[red]wrong[/red]"
        table.add_row(escape(row.name), row.gold, escape(row.answer[:SHOWN_ANSWER]), mark)
    return table


def confusion_table(score: Score) -> Table:
    """Gold topics down, answers across; the right ones stand out."""
    counts = Counter(
        (row.gold, row.answer if row.answer in LABELS else OTHER) for row in score.rows
    )
    answers = [*LABELS, *([OTHER] if any(answer == OTHER for _, answer in counts) else [])]
    title = "Gold topic (down) by answer (across)"
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    table.padding = (0, 0)
    table.add_column("", no_wrap=True)
    for answer in answers:
        table.add_column(_heading(answer), justify="right", no_wrap=True)
    table.add_column("right", justify="right", no_wrap=True)
    for topic, (share, _) in score.by_topic().items():
        cells = [_cell(counts[topic, answer], right=answer == topic) for answer in answers]
        table.add_row(topic, *cells, f"{share:.0%}")
    return table


def _cell(count: int, *, right: bool) -> str:
    if count == 0:
        return "[dim]·[/dim]"
    return f"[bold green]{count}[/bold green]" if right else str(count)


def _heading(topic: str) -> str:
    """The name in full, on two lines where it is long: 80 columns have to be enough."""
    if len(topic) <= LONGEST_HEADING:
        return topic
    return f"{topic[: LONGEST_HEADING - 2]}-\n{topic[LONGEST_HEADING - 2 :]}"
