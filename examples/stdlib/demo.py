"""The main job on real input: a stack of its own annotates the held-out documentation of this
Python's standard library through HTTP, Celery, the engine and PostgreSQL, and shows what came out.

Run by `make demo`. Leaves nothing running.
"""

import shutil
import signal
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Annotated

import typer
from rich.console import Console

import penstock
from examples.stdlib import picture, word_count
from examples.stdlib.prompts import summary_prompt
from examples.stdlib.stack import RunningStack, running
from penstock.annotation.report.about import report_of
from penstock.annotation.report.html import write_page
from penstock.annotation.report.terminal import show
from penstock.annotation.rounds.manifest import load, manifest_path
from penstock.client import Client
from penstock.errors import PenstockError

TASK = Path(__file__).with_name("topics.toml")
CHAT_TOKENS = 64
QUESTION = summary_prompt("shutil.copytree")
INTERRUPTED = 130  # exit status after Ctrl-C

console = Console(highlight=False)


def main(
    keep: Annotated[
        bool, typer.Option("--keep", help="Keep the stack's data for `penstock up`.")
    ] = False,
    rows: Annotated[int | None, typer.Option(min=10, help="At most so many rows.")] = None,
    data_dir: Annotated[Path | None, typer.Option(help="Data directory to use and keep.")] = None,
    model: Annotated[
        str | None, typer.Option(help="A folder, a hub name or `fake`; by default the tiny one.")
    ] = None,
    output: Annotated[Path, typer.Option(help="Folder of what comes out.")] = Path("demo-output"),
) -> None:
    """Annotate the standard library's documentation, end to end."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _interrupt)
    try:
        with _folder(data_dir, keep=keep) as folder:
            _demo(folder, output, rows, model)
    except PenstockError as error:
        typer.echo(f"demo: {error.message}", err=True)
        raise typer.Exit(1) from None
    except KeyboardInterrupt:
        typer.echo("Interrupted; nothing is left running.", err=True)
        raise typer.Exit(INTERRUPTED) from None


def _demo(folder: Path, output: Path, rows: int | None, model: str | None) -> None:
    table, labelled = folder / "heldout.csv", folder / "labelled.csv"
    console.print(f"The documentation of Python {sys.version.split()[0]}; starting …")
    with running(folder, model) as stack:
        _introduce(stack)
        count = word_count.write_heldout(table, rows)
        console.print(f"{count:,} held-out docstrings, with what a word count of the others says")
        with Client(stack.api_url) as client:
            penstock.annotate(table, TASK, client=client, output=labelled)
            reply = client.chat(QUESTION, max_tokens=CHAT_TOKENS, temperature=0.0).response
    _report(labelled, output)
    _show_chat(reply)
    _farewell(output)


def _report(labelled: Path, output: Path) -> None:
    """Show it here, and put all that is worth keeping into `output`."""
    report = report_of(labelled)
    show(report, console)
    output.mkdir(parents=True, exist_ok=True)
    for path in (labelled.with_name("heldout.csv"), labelled, manifest_path(labelled)):
        shutil.copy(path, output)
    write_page(report, output / "report.html")
    picture.draw(output / "demo.png", report, load(manifest_path(labelled)).history)


def _introduce(stack: RunningStack) -> None:
    console.print(f"  API     {stack.api_url}/docs")
    console.print(f"  Flower  {stack.flower_url}")
    console.print(f"  Logs    {stack.logs}")
    console.print(
        f"While it runs, try in another terminal:  kill -9 {stack.children['worker']}"
        "  (the worker; nothing will be lost)",
        soft_wrap=True,
    )


def _show_chat(reply: str) -> None:
    console.print(f"\nYou:    {QUESTION}")
    console.print(f"Model:  {reply}\n", markup=False)


def _farewell(output: Path) -> None:
    folder = output.absolute()
    for name, file in (
        ("Report", "report.html"),
        ("Table", "labelled.csv"),
        ("Manifest", "labelled.csv.manifest.json"),
        ("Picture", "demo.png"),
    ):
        console.print(f"{name:<10}  {folder / file}", soft_wrap=True)
    console.print(
        "Nothing is left running. Next:\n"
        "  make up                                        the stack, until Ctrl-C\n"
        '  make up ARGS="--model Qwen/Qwen3-0.6B"         with a real model from the hub\n'
        "  .venv/bin/penstock annotate --help             your own table\n"
        "  .venv/bin/penstock chat                        talk to it\n"
        "  README.md, ARCHITECTURE.md                     how it works",
    )


@contextmanager
def _folder(given: Path | None, *, keep: bool) -> Iterator[Path]:
    """The stack's data directory; a temporary one is removed at the end unless it is kept."""
    if given is not None:
        given.mkdir(parents=True, exist_ok=True)
        yield given
        return
    folder = Path(tempfile.mkdtemp(prefix="penstock-demo-"))
    try:
        yield folder
    finally:
        if keep:
            console.print(f"Kept: penstock up --data-dir {folder}", soft_wrap=True)
        else:
            shutil.rmtree(folder, ignore_errors=True)


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    typer.run(main)
