"""`penstock annotate diff`: what changed between two annotations, and did gold get better."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from penstock.annotation.rounds.diff import Difference, OnGold

MOVES = 20  # lines of the table
LONGEST = 60  # characters of an answer
SURE = 0.05  # below it, chance alone is called unlikely


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(diff)


def diff(
    before: Annotated[Path, typer.Argument(metavar="A", help="An annotated table.")],
    after: Annotated[Path, typer.Argument(metavar="B", help="Another one of the same rows.")],
    gold: Annotated[
        str | None, typer.Option(help="Column with the right answers; by default the task's.")
    ] = None,
    rows: Annotated[int, typer.Option(min=0, help="Changed rows to show.")] = 5,
) -> None:
    """Compare two annotations of the same rows: what changed, and whether gold got better.

    With gold: accuracy of both with 95 % intervals, and McNemar's exact test of the difference.
    """
    from penstock.annotation.rounds.annotated import annotated
    from penstock.annotation.rounds.diff import difference
    from penstock.commands.annotation.rounds import counting

    with counting("Comparing") as looked:
        found = difference(annotated(before), annotated(after), gold, rows, looked)
    console = Console(soft_wrap=True)
    console.print(f"{found.changed:,} of {found.rows:,} rows changed.")
    if found.moves:
        console.print(_moves(found))
    for name, count in found.columns.most_common():
        console.print(Text(f"{name}: {count:,} rows changed."))
    if found.examples:
        console.print(_examples(found))
    if found.gold.rows:
        for sentence in _judgement(found.gold):
            console.print(sentence)


def _moves(found: Difference) -> Table:
    table = Table("from", "to", "rows")
    for (one, other), count in found.moves.most_common(MOVES):
        table.add_row(_short(one), _short(other), f"{count:,}")
    if (rest := len(found.moves) - MOVES) > 0:
        table.add_row(f"… {rest:,} more kinds", "", "")
    return table


def _examples(found: Difference) -> Table:
    table = Table("row", "before", "after", "gold")
    for row in found.examples:
        table.add_row(row.place, _short(row.before), _short(row.after), _short(row.gold))
    return table


def _short(text: str) -> Text:
    """One line, with brackets as they are."""
    line = " ".join(text.split())
    return Text(line if len(line) <= LONGEST else f"{line[: LONGEST - 1]}…")


def _judgement(gold: OnGold) -> list[str]:
    from penstock.annotation.report.figures import plural

    said = [
        f"{name}: {interval.middle:.1%} right "
        f"({interval.low:.1%} to {interval.high:.1%}, 95 %), {right:,} of {gold.rows:,} with gold."
        for name, interval, right in zip(
            ("before", "after"), gold.intervals, (gold.before, gold.after), strict=True
        )
    ]
    verdict = "no sign of a difference" if gold.p >= SURE else _better(gold)
    said.append(
        f"{plural(gold.gained, 'row')} became right, {gold.lost:,} became wrong: {verdict} "
        f"(McNemar's exact test, p = {gold.p:.3g})."
    )
    return said


def _better(gold: OnGold) -> str:
    return "it got better" if gold.gained > gold.lost else "it got worse"
