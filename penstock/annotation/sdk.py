"""`penstock.annotate`: a table in, the same table with answers out. Knows what the rooms are called
and in which order they are asked; does nothing of it itself.
"""

from __future__ import annotations

import logging
import os
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar, overload

from penstock.annotation.records import Column, Live, Sink, Source, Summary
from penstock.errors import InvalidRequest, PenstockError

if TYPE_CHECKING:
    from penstock.annotation.run.progress import ProgressView
    from penstock.annotation.task.task import Task
    from penstock.client import Client
    from penstock.client.connection import OnRetry

Table = TypeVar("Table")


class Quiet:
    """A watcher that shows nothing, and logs what should be known."""

    def note(self, sentence: str) -> None:
        logging.getLogger("penstock").info(sentence)

    def away(self, error: PenstockError, pause: float) -> None: ...
    def reading(self, rows: int) -> None: ...
    def scanned(self, rows: int) -> None: ...
    def sending(self, rows: int) -> None: ...
    def progressed(self, live: Live) -> None: ...


@overload
def annotate(
    table: str | Path,
    task: Task | Path | str | Mapping[str, object] | None = None,
    *,
    client: Client | None = None,
    url: str | None = None,
    api_key: str | None = None,
    output: str | Path,
    state: str | Path | None = None,
    progress: bool = True,
    **overrides: object,
) -> Summary: ...
@overload
def annotate(
    table: Table,
    task: Task | Path | str | Mapping[str, object] | None = None,
    *,
    client: Client | None = None,
    url: str | None = None,
    api_key: str | None = None,
    output: None = None,
    state: str | Path | None = None,
    progress: bool = True,
    **overrides: object,
) -> Table: ...
def annotate(
    table: object,
    task: Task | Path | str | Mapping[str, object] | None = None,
    *,
    client: Client | None = None,
    url: str | None = None,
    api_key: str | None = None,
    output: str | Path | None = None,
    state: str | Path | None = None,
    progress: bool = True,
    **overrides: object,
) -> object:
    """Ask a model about every row, and return the table with the answers as new columns.

    `table` is a pandas or polars frame, a list of dicts, an Arrow table or a Hugging Face dataset:
    the same type comes back, in the same order. Or it is a path, and so is `output`; then the
    `Summary` comes back. `task` is a task file, a template or a mapping; `overrides` are the keys
    of a task and win over it. Without `client` there is one of `url` and `api_key`, by default
    those of PENSTOCK_URL and PENSTOCK_API_KEY.

        labelled = penstock.annotate(frame, "Is this spam? {{ text }}", labels=["spam", "ham"])

    Blocks until all is done. When it is interrupted the service goes on, and the same call picks
    its answers up; with `state`, a path, also which answers were there. Raises InvalidRequest,
    before anything is sent, for what is wrong with the table or the task.
    """
    from penstock.annotation.run.annotation import Annotation
    from penstock.annotation.table.frames import FrameSink
    from penstock.annotation.task.task import task_from

    asked = task_from(task, **overrides)
    source, ends = _ends(table, output)
    ends(asked.columns)  # refuses what it cannot write, before it connects
    made: list[Sink] = []

    def sink() -> Sink:
        made.append(ends(annotation.task.columns))
        return made[-1]

    with (
        _ledger(output, state) as ledger,
        _watching(progress) as watcher,
        _client(client, url, api_key, watcher.away) as service,
    ):
        annotation = Annotation(source, asked, service, watcher, ledger)
        summary = annotation.run(sink)
    if summary.problem is not None:
        warnings.warn(summary.problem, stacklevel=2)
    return made[-1].result if isinstance(made[-1], FrameSink) else summary


def _ends(
    table: object, output: str | Path | None
) -> tuple[Source, Callable[[Sequence[Column]], Sink]]:
    """Where rows come from, and a sink where they go to."""
    from penstock.annotation.table.frames import frame_sink, source_of_frame
    from penstock.annotation.table.sink import sink_of
    from penstock.annotation.table.source import source_of

    on_disk = isinstance(table, str | Path)
    if on_disk and output is None:
        raise InvalidRequest("A table that is a path needs `output`, a path, too.", param="output")
    source: Source = source_of(Path(table)) if on_disk else source_of_frame(table)  # type: ignore[arg-type]
    if output is None:
        return source, lambda columns: frame_sink(table, columns)
    return source, lambda columns: sink_of(Path(output), source, columns)


@contextmanager
def _ledger(output: str | Path | None, state: str | Path | None) -> Iterator[Path]:
    """What is remembered of the run: beside the output, where it is asked for, or nowhere."""
    from penstock.annotation.run.ledger import ledger_path

    if state is not None:
        yield Path(state)
    elif output is not None:
        yield ledger_path(Path(output))
    else:
        with tempfile.TemporaryDirectory(prefix="penstock-") as folder:
            yield ledger_path(Path(folder) / "table")


def _watching(progress: bool) -> AbstractContextManager[ProgressView | Quiet]:
    if not progress:
        return nullcontext(Quiet())
    from rich.console import Console

    from penstock.annotation.run.progress import ProgressView

    return ProgressView(Console(stderr=True))


@contextmanager
def _client(
    client: Client | None, url: str | None, api_key: str | None, away: OnRetry
) -> Iterator[Client]:
    """The caller's own, which stays open, or one of a service that answers now."""
    if client is not None:
        yield client
        return
    from penstock.client import DEFAULT_URL, Client

    where = url or os.environ.get("PENSTOCK_URL") or DEFAULT_URL
    key = api_key or os.environ.get("PENSTOCK_API_KEY")
    with Client(where, key, on_retry=away) as opened:
        opened.ping()
        yield opened
