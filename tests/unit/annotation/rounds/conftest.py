"""Annotated tables with their manifests, as a run leaves them."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from penstock.annotation.records import Live
from penstock.annotation.rounds.manifest import (
    Counts,
    Input,
    Manifest,
    Model,
    Output,
    checksum,
    manifest_path,
    write,
)
from penstock.annotation.run.annotation import Annotation, Options
from penstock.annotation.run.ledger import ledger_path
from penstock.annotation.table.sink import sink_of
from penstock.annotation.table.source import source_of
from penstock.annotation.task.task import Task
from penstock.client import Client
from tests.support.service import Service, listen, serving

#: Writes an input and its annotated table; gives the path of the latter.
Annotate = Callable[..., Path]
Cells = Sequence[Mapping[str, object]]

LABELS = Task(
    template="Which? {{ text }}", labels=("good", "bad", "so, so"), gold="truth", model="tiny"
)
ROWS: Cells = (
    {"id": "1", "text": "A fine\nday", "truth": "good"},
    {"id": "2", "text": 'He said "no", then left', "truth": "bad"},
    {"id": "3", "text": "Grüße", "truth": ""},
    {"id": "4", "text": "", "truth": "bad"},
)
ANSWERS: Cells = (
    {"label": "good", "probability": 0.9, "needs_review": False},
    {"label": "good", "probability": 0.4, "needs_review": True},
    {"label": "bad", "probability": 0.5, "needs_review": True},
    {"label": None, "needs_review": True, "error": "empty_prompt: Nothing is asked."},
)


@pytest.fixture
def annotate(tmp_path: Path) -> Annotate:
    def made(
        name: str = "out.csv",
        rows: Cells = ROWS,
        answers: Cells = ANSWERS,
        task: Task = LABELS,
        **changes: object,
    ) -> Path:
        table = tmp_path / "in.csv"
        with table.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
        path = tmp_path / name
        source = source_of(table)
        with sink_of(path, source, task.columns) as sink:
            for record, cells in zip(source.read(), answers, strict=True):
                sink.write(record, cells)
        told = manifest(table, path, list(rows[0]), task)
        write(manifest_path(path), told.model_copy(update=changes))
        return path

    return made


def manifest(table: Path, output: Path, columns: Sequence[str], task: Task) -> Manifest:
    return Manifest(
        created=0.0,
        source=Input(
            name=table.name, sha256=checksum(table), rows=len(ROWS), columns=tuple(columns)
        ),
        output=Output(
            name=output.name,
            sha256=checksum(output),
            columns=tuple(column.name for column in task.columns),
        ),
        task=task.model_dump(mode="json", exclude_defaults=True),
        task_fingerprint=task.fingerprint,
        models={"tiny": Model(name="tiny")},
        counts=Counts(rows=len(ROWS)),
    )


def cells(path: Path, column: str) -> list[object]:
    """One column of a table."""
    return [record.row.get(column) for record in source_of(path).read()]


#: Of a run over real HTTP.
ASKED = Task(template="Say {{ text }}", text=True, gold="truth")
TABLE = "id,text,truth\n1,one,echo: Say one\n2,fail,two\n3,three,\n4,fail,four\n"


@dataclass
class ModelService(Service):
    """Says which model it serves."""

    told: dict[str, object] = field(default_factory=lambda: {"name": "tiny", "loaded": True})

    def app(self) -> Starlette:
        app = super().app()
        app.router.routes.append(Route("/stats", self._stats))
        return app

    async def _stats(self, request: Request) -> Response:
        empty = {"conversations": 0, "queue_depth": 0, "queue": [], "workers": []}
        cache = {"size": 0, "hits": 0, "misses": 0}
        return JSONResponse({**empty, "cache": cache, "model": self.told})


@dataclass
class Heard:
    """A watcher that remembers what it was told."""

    notes: list[str] = field(default_factory=list)

    def note(self, sentence: str) -> None:
        self.notes.append(sentence)

    def reading(self, rows: int) -> None: ...
    def scanned(self, rows: int) -> None: ...
    def sending(self, rows: int) -> None: ...
    def progressed(self, live: Live) -> None: ...


@pytest.fixture
def service() -> Iterator[ModelService]:
    with serving(ModelService(), listen()) as made:
        yield made


@pytest.fixture
def client(service: ModelService) -> Iterator[Client]:
    with Client(service.url, retry_for=0.3) as opened:
        yield opened


@pytest.fixture
def out(tmp_path: Path, client: Client) -> Path:
    """A table that was annotated once; rows 2 and 4 failed."""
    table, output = tmp_path / "in.csv", tmp_path / "out.csv"
    table.write_text(TABLE)
    source = source_of(table)
    run = Annotation(source, ASKED, client, Heard(), ledger_path(output), Options())
    run.run(lambda: sink_of(output, source, run.task.columns))
    return output
