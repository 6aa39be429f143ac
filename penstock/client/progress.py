"""A progress bar where somebody looks: rich at a terminal, tqdm in a notebook that has it.

Nothing where nobody does. Knows a job's progress; asks nothing.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from penstock.schemas.batch import BatchResult

Tell = Callable[[BatchResult], None]


@contextmanager
def showing(wanted: bool, name: str) -> Iterator[Tell | None]:
    """What to tell the progress to, None where it is shown nowhere."""
    if not wanted:
        yield None
    elif _in_notebook():
        with _notebook(name) as tell:
            yield tell
    elif sys.stderr.isatty():
        with _terminal(name) as tell:
            yield tell
    else:
        yield None


def _in_notebook() -> bool:
    get_shell = getattr(sys.modules.get("IPython"), "get_ipython", None)
    return get_shell is not None and type(get_shell()).__name__ == "ZMQInteractiveShell"


@contextmanager
def _notebook(name: str) -> Iterator[Tell | None]:
    try:
        bar: Any = importlib.import_module("tqdm.notebook").tqdm(desc=name, unit=" prompts")
    except ImportError:  # neither tqdm nor the notebook's widgets are a must
        yield None
        return

    def tell(now: BatchResult) -> None:
        bar.total = now.progress.total
        bar.update(now.progress.completed + now.progress.failed - bar.n)

    try:
        yield tell
    finally:
        bar.close()


@contextmanager
def _terminal(name: str) -> Iterator[Tell]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
    from rich.progress import TimeRemainingColumn as Left

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), Left())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(name, total=None)

        def tell(now: BatchResult) -> None:
            done = now.progress.completed + now.progress.failed
            bar.update(task, completed=done, total=now.progress.total)

        yield tell
