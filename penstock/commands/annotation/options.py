"""The options that make a task, for every command that needs one. They override the task file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from penstock.commands.connection import check_model_name
from penstock.errors import InvalidRequest

if TYPE_CHECKING:
    from penstock.annotation.task.task import Task

Mode = Literal["score", "decode"]

TableArgument = Annotated[
    Path,
    typer.Argument(
        metavar="TABLE", help="A .csv, .tsv, .jsonl, .ndjson or .parquet file; text also .gz, .zst."
    ),
]
OutputOption = Annotated[Path, typer.Option(help="File to write, of the same kinds.")]
TaskFile = Annotated[Path | None, typer.Option("--task", help="A task file, in TOML.")]
Template = Annotated[
    str | None, typer.Option(help="The question in Jinja; {{ column }} stands for a cell.")
]
Labels = Annotated[str | None, typer.Option(help="The answers that are allowed: a,b,c.")]
Several = Annotated[
    bool | None, typer.Option("--several", help="More than one label may apply, or none.")
]
ModeOption = Annotated[
    Mode | None,
    typer.Option(
        help="With labels: `score` weighs them all and tells probabilities; `decode` lets the "
        "model write its answer."
    ),
]
Fields = Annotated[
    Path | None, typer.Option(help="A file with a JSON schema: its properties become columns.")
]
System = Annotated[str | None, typer.Option(help="System prompt of all rows.")]
Model = Annotated[str | None, typer.Option(help="By default the one that is served.")]
Gold = Annotated[str | None, typer.Option(help="Column with the right answers, where known.")]
ReviewBelow = Annotated[
    float | None, typer.Option(help="Rows with a smaller probability are for review.")
]
MaxTokens = Annotated[int | None, typer.Option(help="Most new tokens of an answer.")]
Temperature = Annotated[float | None, typer.Option(help="0 always takes the likeliest token.")]
Seed = Annotated[int | None, typer.Option(help="Same seed, same answers.")]
Set = Annotated[
    list[str] | None,
    typer.Option("--set", help="Any other key of a task: `votes.samples=3`, as TOML writes it."),
]

Cancel = Annotated[
    bool, typer.Option("--cancel", help="Ctrl-C cancels the jobs instead of leaving them.")
]
Fresh = Annotated[
    bool, typer.Option("--fresh", help="Cancel the unfinished run of before, start anew.")
]


def task_of(
    task: Path | None,
    template: str | None = None,
    labels: str | None = None,
    several: bool | None = None,
    mode: Mode | None = None,
    fields: Path | None = None,
    system: str | None = None,
    model: str | None = None,
    gold: str | None = None,
    review_below: float | None = None,
    max_tokens: int | None = None,
    temperature: float | None = None,
    seed: int | None = None,
    set: list[str] | None = None,
) -> Task:
    """The task of a command line. Raises InvalidRequest that names the option or the key."""
    from penstock.annotation.task.task import task_from

    check_model_name(model)
    if task is None and template is None:
        raise InvalidRequest("Give a task file by --task, or a --template.", param="task")
    overrides: dict[str, object] = {
        "template": template,
        "labels": None if labels is None else _labels(labels),
        "several": several,
        "mode": mode,
        "fields": None if fields is None else _schema(fields),
        "system": system,
        "model": model,
        "gold": gold,
        "review_below": review_below,
        "max_tokens": max_tokens,
        "temperature": temperature,
        "seed": seed,
        **assigned(set or []),
    }
    if task is None and not any(overrides.get(kind) for kind in ("labels", "fields")):
        overrides.setdefault("text", True)
    return task_from(task, **overrides)


def _labels(text: str) -> list[str]:
    labels = [part.strip() for part in text.split(",")]
    if "" in labels or len(frozenset(labels)) < max(2, len(labels)):
        raise InvalidRequest(
            "--labels needs two or more different ones, with commas between them.", param="labels"
        )
    return labels


def _schema(path: Path) -> object:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise InvalidRequest(f"{path} cannot be read: {reason}.", param="fields") from None
    except ValueError as error:
        raise InvalidRequest(f"{path} is no JSON: {error}.", param="fields") from None


def assigned(pairs: list[str]) -> dict[str, object]:
    """`key=value` each; a value that is no TOML is a text."""
    import tomllib

    found: dict[str, object] = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals or not key.strip():
            raise InvalidRequest(f"--set {pair}: write it as key=value.", param="set")
        try:
            found[key.strip()] = tomllib.loads(f"value = {value}")["value"]
        except tomllib.TOMLDecodeError:
            found[key.strip()] = value
    return found
