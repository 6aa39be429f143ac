"""`penstock annotate`: from a table to a labelled table. A command of its own for each step; where
none is named, the table is annotated (`run`)."""

from __future__ import annotations

import typer
from typer.core import TyperGroup

from penstock.commands.annotation import (
    diff,
    lint,
    partial,
    pilot,
    report,
    reproduce,
    rerun,
    review,
    run,
    schema,
)

DEFAULT = "run"


class _Group(TyperGroup):
    """`annotate table.csv …` is `annotate run table.csv …`."""

    def parse_args(self, ctx: typer.Context, args: list[str]) -> list[str]:  # type: ignore[override]
        if args and args[0] not in self.commands and args[0] not in ctx.help_option_names:
            args = [DEFAULT, *args]
        return super().parse_args(ctx, args)


def register(app: typer.Typer) -> None:
    """Add the group."""
    group = typer.Typer(
        name="annotate",
        cls=_Group,
        help="Ask a model about every row of a table. `annotate TABLE` is `annotate run TABLE`.",
        no_args_is_help=True,
    )
    for commands in (lint, run, pilot, partial, report, reproduce, rerun, diff, review, schema):
        commands.register(group)
    app.add_typer(group)
