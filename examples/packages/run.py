"""Typed fields from the metadata of the installed packages, end to end: a table, a stack of its
own (or `--url`), the annotation, and what came out beside the truth.

python -m examples.packages.run                                 # the tiny model: see README.md
python -m examples.packages.run --model Qwen/Qwen3-4B-Instruct-2507 --characters 6000
"""

import signal
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Annotated

import typer
from rich.console import Console

import penstock
from examples.packages import check, metadata
from examples.stdlib.stack import running
from penstock.errors import PenstockError

TASK = Path(__file__).with_name("packages.toml")
INTERRUPTED = 130  # exit status after Ctrl-C

console = Console(highlight=False)


def main(
    model: Annotated[
        str | None, typer.Option(help="A folder, a hub name or `fake`; by default the tiny one.")
    ] = None,
    url: Annotated[
        str | None, typer.Option(help="A running service, instead of a stack of its own.")
    ] = None,
    characters: Annotated[
        int, typer.Option(help="Longest metadata that is taken.")
    ] = metadata.CHARACTERS,
    output: Annotated[Path, typer.Option(help="Folder of the tables.")] = Path("packages-output"),
) -> None:
    """Ask for the installed packages' fields, and check them."""
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        _run(model, url, characters, output)
    except PenstockError as error:
        typer.echo(f"packages: {error.message}", err=True)
        raise typer.Exit(1) from None
    except KeyboardInterrupt:
        typer.echo("Interrupted.", err=True)
        raise typer.Exit(INTERRUPTED) from None


def _run(model: str | None, url: str | None, characters: int, output: Path) -> None:
    output.mkdir(parents=True, exist_ok=True)
    table, labelled = output / "packages.jsonl", output / "labelled.jsonl"
    console.print(f"{metadata.write(table, characters):,} installed packages")
    with _service(model, url) as address:
        penstock.annotate(table, TASK, url=address, output=labelled)
    console.print(check.shown(check.figures(labelled)))
    console.print(f"Answers     {labelled}", soft_wrap=True)


@contextmanager
def _service(model: str | None, url: str | None) -> Iterator[str]:
    """The address of the service to ask."""
    if url is not None:
        yield url
        return
    with (
        tempfile.TemporaryDirectory(prefix="penstock-packages-") as folder,
        running(Path(folder), model) as stack,
    ):
        yield stack.api_url


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    typer.run(main)
