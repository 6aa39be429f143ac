"""What there is of a run, from its ledger alone. Changes nothing of the run."""

from __future__ import annotations

from pathlib import Path

from penstock.annotation.records import Live
from penstock.annotation.run.closing import write_manifest
from penstock.annotation.run.judge import Judge
from penstock.annotation.run.ledger import LedgerFile, ledger_path
from penstock.annotation.run.writing import Writer
from penstock.annotation.table.sink import sink_of
from penstock.annotation.table.source import source_of
from penstock.annotation.task.questions import voters
from penstock.annotation.task.task import task_from
from penstock.annotation.trust.confidence import Confidence
from penstock.client import Client
from penstock.errors import InvalidRequest


def write_partial(output: Path, target: Path, client: Client, table: Path | None = None) -> Live:
    """Write the rows that every voter has answered, and a manifest, for reports. `table`: where it
    is now, if not where the run was given it."""
    file = LedgerFile(ledger_path(output))
    ledger = file.load()
    if ledger is None:
        raise InvalidRequest(
            f"There is no run of {output}: {file.path} does not exist.", param="output"
        )
    place = table or (None if ledger.table is None else Path(ledger.table))
    if place is None:
        raise InvalidRequest("The run was not of a file; name its table.", param="table")
    source = source_of(place)
    task = task_from(ledger.task)
    asked = voters(task)
    judge = Judge(task, asked, [Confidence()] * len(asked))
    sink = sink_of(target, source, task.columns)
    written = Writer(client, source, ledger, judge, partial=True).write(sink)
    write_manifest(ledger, ledger_path(target), source, judge, written, client)
    return written.live
