"""The main job on real input: a stack of its own annotates the held-out documentation of this
Python's standard library through HTTP, Celery, the engine and PostgreSQL, and shows what came out.

Run by `make demo`. Leaves nothing running.
"""

import csv
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, fields
from pathlib import Path
from types import FrameType
from typing import Annotated

import typer
from rich.console import Console

from examples.stdlib import picture, score
from examples.stdlib.extract import Row, extract, part_of
from examples.stdlib.prompts import TOPIC_TEMPLATE, summary_prompt
from examples.stdlib.stack import RunningStack, running
from examples.stdlib.topics import LABELS
from penstock.annotation.plan import Plan
from penstock.annotation.progress import ProgressView
from penstock.annotation.workflow import Annotation, Summary
from penstock.client import Penstock
from penstock.errors import PenstockError
from penstock.schemas.batch import BatchResult
from penstock.schemas.sampling import Mode

TOPIC_TOKENS = 8
CHAT_TOKENS = 64
BEAT_LIMIT = 15.0  # seconds to wait for a worker's next heartbeat
QUESTION = summary_prompt("shutil.copytree")
INTERRUPTED = 130  # exit status after Ctrl-C

console = Console(highlight=False)


class RecordingView(ProgressView):
    """The progress bar of `penstock annotate`, which also keeps what the picture needs."""

    def __init__(self, screen: Console) -> None:
        super().__init__(screen)
        self.samples: list[tuple[float, int]] = []  # seconds, rows done
        self._start = time.monotonic()

    def posted(self, request_id: str) -> None:
        self._start = time.monotonic()
        self.samples.append((0.0, 0))
        super().posted(request_id)

    def progressed(self, progress: BatchResult) -> None:
        done = progress.progress.completed + progress.progress.failed
        self.samples.append((time.monotonic() - self._start, done))
        super().progressed(progress)


def main(
    keep: Annotated[
        bool, typer.Option("--keep", help="Keep the stack's data for `penstock up`.")
    ] = False,
    rows: Annotated[int | None, typer.Option(min=10, help="At most so many rows.")] = None,
    data_dir: Annotated[Path | None, typer.Option(help="Data directory to use and keep.")] = None,
    model: Annotated[
        str | None, typer.Option(help="A folder, a hub name or `fake`; by default the tiny one.")
    ] = None,
    mode: Annotated[
        Mode, typer.Option(help="`score` weighs all topics, `generate` has the model write one.")
    ] = "score",
    output: Annotated[Path, typer.Option(help="Folder of the picture.")] = Path("demo-output"),
) -> None:
    """Annotate the standard library's documentation, end to end."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _interrupt)
    try:
        with _folder(data_dir, keep=keep) as folder:
            _demo(folder, output, rows, model, mode)
    except PenstockError as error:
        typer.echo(f"demo: {error.message}", err=True)
        raise typer.Exit(1) from None
    except KeyboardInterrupt:
        typer.echo("Interrupted; nothing is left running.", err=True)
        raise typer.Exit(INTERRUPTED) from None


def _demo(folder: Path, output: Path, rows: int | None, model: str | None, mode: Mode) -> None:
    table = folder / "heldout.csv"
    annotated = folder / "annotated.csv"
    count = _write_heldout(table, rows)
    console.print(f"{count:,} held-out docstrings of Python {sys.version.split()[0]}; starting …")
    with running(folder, model) as stack:
        _introduce(stack)
        plan = Plan(
            input=table,
            output=annotated,
            template=TOPIC_TEMPLATE,
            choices=LABELS,
            mode=mode,
            fields={"max_tokens": TOPIC_TOKENS, "temperature": 0.0},
        )
        view = RecordingView(console)
        with Penstock(stack.api_url, on_retry=view.away) as client:
            with view:
                summary = Annotation(plan, client, view).run()
            marked = score.read_marked(annotated)
            output.mkdir(parents=True, exist_ok=True)
            shutil.copy(annotated, output)
            picture.draw(output / "demo.png", view.samples, marked.by_topic(), marked.majority[1])
            reply = client.chat(QUESTION, max_tokens=CHAT_TOKENS, temperature=0.0).response
            _report(summary, marked, _padded_share(client))
            _show_chat(reply)
    _farewell(output)


def _write_heldout(path: Path, most: int | None) -> int:
    """The held-out rows as CSV, or `most` of them spread evenly over all. Returns their number."""
    heldout = [row for row in extract() if part_of(row.docstring) == "heldout"]
    count = min(most or len(heldout), len(heldout))
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, [field.name for field in fields(Row)])
        writer.writeheader()
        for number in range(count):
            writer.writerow(asdict(heldout[number * len(heldout) // count]))
    return count


def _introduce(stack: RunningStack) -> None:
    console.print(f"  API     {stack.api_url}/docs")
    console.print(f"  Flower  {stack.flower_url}")
    console.print(f"  Logs    {stack.logs}")
    console.print(
        f"While it runs, try in another terminal:  kill -9 {stack.children['worker']}"
        "  (the worker; nothing will be lost)",
        soft_wrap=True,
    )


def _report(summary: Summary, marked: score.Score, padded: str) -> None:
    console.print(score.sample_table(marked))
    console.print(score.confusion_table(marked))
    topic, share = marked.majority
    seconds = max(summary.seconds, 1e-3)
    tokens = summary.prompt_tokens + summary.completion_tokens
    console.print(
        f"Accuracy    {marked.accuracy:.1%} (always saying {topic!r}: {share:.1%})\n"
        f"Rows        {summary.rows:,}, {summary.failed:,} failed, "
        f"{summary.outside:,} outside the choices\n"
        f"Throughput  {summary.rows / seconds:,.1f} rows/s, {tokens / seconds:,.0f} tokens/s "
        f"over {seconds:,.1f} s\n"
        f"Tokens      {summary.prompt_tokens:,} in, {summary.completion_tokens:,} out, "
        f"padded share {padded}"
    )


def _padded_share(client: Penstock) -> str:
    """Of all that the worker computed; waits for a heartbeat that has the whole job in it."""
    asked = time.monotonic()
    while True:
        workers = client.stats().workers
        waited = time.monotonic() - asked
        if waited > BEAT_LIMIT or any(worker.heartbeat_age < waited for worker in workers):
            break
        time.sleep(0.5)
    shares = [worker.stats.get("padded_share") for worker in workers]
    return next((f"{share:.1%}" for share in shares if isinstance(share, float)), "unknown")


def _show_chat(reply: str) -> None:
    console.print(f"\nYou:    {QUESTION}")
    console.print(f"Model:  {reply}\n", markup=False)


def _farewell(output: Path) -> None:
    folder = output.absolute()
    console.print(f"Picture     {folder / 'demo.png'}", soft_wrap=True)
    console.print(f"Answers     {folder / 'annotated.csv'}", soft_wrap=True)
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
