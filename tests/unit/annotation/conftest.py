"""Plans over small files, a service to send them to, and a watcher that remembers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from penstock.annotation.plan import Plan
from penstock.annotation.workflow import Annotation, Summary
from penstock.client import Penstock
from penstock.schemas.batch import BatchResult
from tests.support.service import Service, listen, serving

#: Runs the plan, with changes to it: `annotate(fresh=True)`.
Annotate = Callable[..., Summary]


def nothing() -> None:
    return None


@dataclass
class Heard:
    """A watcher. The hooks stand for a Ctrl-C, or for the world going on meanwhile."""

    notes: list[str] = field(default_factory=list)
    rows: int = 0
    on_sending: Callable[[], object] = nothing
    on_posted: Callable[[], object] = nothing
    on_progress: Callable[[], object] = nothing

    def note(self, sentence: str) -> None:
        self.notes.append(sentence)

    def scanned(self, rows: int) -> None:
        self.rows = rows

    def sending(self, rows: int) -> None:
        self.on_sending()

    def posted(self, request_id: str) -> None:
        self.on_posted()

    def progressed(self, progress: BatchResult) -> None:
        self.on_progress()


@dataclass
class ModelService(Service):
    """Says which model it serves, whatever else fails."""

    model: str = "tiny"

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


@pytest.fixture
def service() -> Iterator[ModelService]:
    made = ModelService()
    with serving(made, listen()):
        yield made


@pytest.fixture
def client(service: Service) -> Iterator[Penstock]:
    with Penstock(service.url, retry_for=2) as opened:
        yield opened


@pytest.fixture
def heard() -> Heard:
    return Heard()


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    table = tmp_path / "in.csv"
    table.write_text('id,text\n1,"a, b"\n2,fail\n3,c\n')
    return Plan(table, tmp_path / "out.csv", "Say {text}", fields={"max_tokens": 5})


@pytest.fixture
def annotate(plan: Plan, client: Penstock, heard: Heard) -> Annotate:
    def run(**changes: Any) -> Summary:
        return Annotation(replace(plan, **changes), client, heard).run()

    return run
