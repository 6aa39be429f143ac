"""Runs over small files, a service to send them to, and a watcher that remembers."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from penstock.annotation.records import Live, Summary
from penstock.annotation.run.annotation import Annotation, Options
from penstock.annotation.run.ledger import Ledger, LedgerFile, ledger_path
from penstock.annotation.table.sink import sink_of
from penstock.annotation.table.source import source_of
from penstock.annotation.task.task import task_from
from penstock.client import Client
from tests.support.service import Service, StoredJob, listen, serving


def nothing() -> None:
    return None


def interrupt() -> None:
    raise KeyboardInterrupt


@dataclass
class Heard:
    """A watcher. The hooks stand for a Ctrl-C, or for the world going on meanwhile."""

    notes: list[str] = field(default_factory=list)
    looks: list[Live] = field(default_factory=list)
    rows: int = 0
    on_scanned: Callable[[], object] = nothing
    on_sent: Callable[[], object] = nothing
    on_progress: Callable[[], object] = nothing

    def note(self, sentence: str) -> None:
        self.notes.append(sentence)

    def reading(self, rows: int) -> None: ...

    def scanned(self, rows: int) -> None:
        self.rows = rows
        self.on_scanned()

    def sending(self, rows: int) -> None:
        self.on_sent()

    def progressed(self, live: Live) -> None:
        self.looks.append(live)
        self.on_progress()


@dataclass
class ModelService(Service):
    """Says which model it serves, whatever else fails."""

    model: str = "tiny"
    eager: bool = False  #: a job that goes on has its answers already

    def app(self) -> Starlette:
        app = super().app()
        app.router.routes.append(Route("/stats", self._stats))
        return app

    async def _stats(self, request: Request) -> Response:
        return JSONResponse(
            {
                "conversations": 0,
                "cache": {"size": 0, "hits": 0, "misses": 0},
                "queue_depth": 0,
                "queue": [],
                "model": {"name": self.model, "loaded": True},
                "workers": [],
            }
        )

    def _state(self, job: StoredJob, query: Mapping[str, str]) -> dict[str, object]:
        if not (self.eager and job.status == "processing"):
            return super()._state(job, query)
        return super()._state(replace(job, status="completed"), query) | {"status": "processing"}

    def asked(self, **fields: object) -> list[Any]:
        """The prompts of all jobs with these fields, in the order of posting."""
        return [
            message
            for job in self.jobs.values()
            if fields.items() <= job.fields.items()
            for message in job.messages
        ]

    @property
    def works(self) -> list[str]:
        """The jobs that compute something."""
        return [id for id, job in self.jobs.items() if job.fields.get("mode") != "count"]


@pytest.fixture
def service() -> Iterator[ModelService]:
    made = ModelService()
    with serving(made, listen()):
        yield made


@pytest.fixture
def client(service: Service) -> Iterator[Client]:
    with Client(service.url, retry_for=0.3) as opened:
        yield opened


@pytest.fixture
def heard() -> Heard:
    return Heard()


@dataclass
class Bench:
    """One table, one output, and the same command again and again."""

    folder: Path
    client: Client
    heard: Heard
    task: dict[str, object] = field(
        default_factory=lambda: {"template": "Say {{ text }}", "text": True}
    )

    @property
    def table(self) -> Path:
        return self.folder / "in.csv"

    @property
    def output(self) -> Path:
        return self.folder / "out.csv"

    @property
    def file(self) -> LedgerFile:
        return LedgerFile(ledger_path(self.output))

    @property
    def ledger(self) -> Ledger:
        found = self.file.load()
        assert found is not None
        return found

    def run(self, options: Options | None = None, **task: Any) -> Summary:
        source = source_of(self.table)
        asked = task_from(self.task, **task)
        state = ledger_path(self.output)
        run = Annotation(source, asked, self.client, self.heard, state, options or Options())
        return run.run(lambda: sink_of(self.output, source, run.task.columns))

    def rows(self) -> list[dict[str, str]]:
        with self.output.open(newline="") as file:
            return list(csv.DictReader(file))


@pytest.fixture
def bench(tmp_path: Path, client: Client, heard: Heard) -> Bench:
    made = Bench(tmp_path, client, heard)
    made.table.write_text('id,text\n1,"a, b"\n2,fail\n3,c\n')
    return made
