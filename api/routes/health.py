"""`/healthz`, `/readyz`, `/health`, `/stats`, `/metrics`: how the service is."""

from __future__ import annotations

from fastapi import APIRouter, Depends
from prometheus_client import CONTENT_TYPE_LATEST
from sqlalchemy import Connection
from starlette.responses import JSONResponse, Response

from api import openapi
from api.dependencies import DEFAULT_OWNER, Owner, PartsDep, get_owner
from api.metrics import Snapshot
from api.probes import OK
from penstock import __version__
from penstock.errors import Unavailable
from penstock.schemas.health import (
    CacheStats,
    Health,
    LaneStats,
    ModelStats,
    Readiness,
    Stats,
    WorkerStats,
)
from storage import fleet, overview, reading
from storage.records import WorkerRecord

router = APIRouter(tags=["health"])

SCRAPE_LIMIT = 3.0  # seconds: a scraper gives up after ten, and would lose this process's figures


@router.get("/healthz")
async def healthz() -> dict[str, str]:
    """This process lives. Asks nobody else."""
    return {"status": OK}


@router.get(
    "/readyz",
    response_model=Readiness,
    responses={503: {"model": Readiness, "description": "A check has failed."}},
)
async def readyz(parts: PartsDep) -> JSONResponse:
    """Database, broker and a live worker, each asked for two seconds at most."""
    checks = await parts.probes.check()
    ready = all(answer == OK for answer in checks.values())
    body = Readiness(status=OK if ready else "not ready", checks=checks)
    headers = {} if ready else {"Retry-After": "2"}
    return JSONResponse(body.model_dump(), 200 if ready else 503, headers)


@router.get("/health", responses=openapi.errors(), dependencies=[Depends(get_owner)])
async def health(parts: PartsDep) -> Health:
    """Whether a model is loaded, and on what."""
    model = parts.config.model
    alive = await parts.offload.read(fleet.workers)
    serving = [worker for worker in alive if worker.model == model]
    return Health(
        status=OK if serving else "degraded",
        model=model,
        model_loaded=bool(serving),
        gpu_available=any(_text(w, "device", "").startswith("cuda") for w in alive),
        cache_size=0,
        workers=len(alive),
        version=__version__,
    )


@router.get("/stats", responses=openapi.errors())
async def stats(parts: PartsDep, owner: Owner) -> Stats:
    """Conversations, queue, model and workers in figures."""
    now = await parts.offload.read(lambda conn: _snapshot(conn, owner))
    return Stats(
        conversations=now.conversations,
        cache=CacheStats(size=0, hits=0, misses=0),
        queue_depth=sum(lane.open_requests for lane in now.lanes),
        queue=[
            LaneStats(
                model=lane.model,
                lane=lane.lane.value,
                ready_shards=lane.ready_shards,
                leased_shards=lane.leased_shards,
                open_requests=lane.open_requests,
                oldest_seconds=round(lane.oldest_seconds, 3),
            )
            for lane in now.lanes
        ],
        model=_model_stats(parts.config.model, now.workers),
        workers=[
            WorkerStats(
                slot=worker.slot,
                model=worker.model,
                heartbeat_age=round(worker.age, 3),
                stats=dict(worker.stats),
            )
            for worker in now.workers
        ],
    )


@router.get("/metrics", response_class=Response)
async def metrics(parts: PartsDep) -> Response:
    """Prometheus. Without the database: this process's own figures."""
    try:
        snapshot = await parts.offload.read(
            lambda conn: _snapshot(conn, DEFAULT_OWNER), limit=SCRAPE_LIMIT
        )
    except Unavailable:
        snapshot = Snapshot(up=False, lanes=[], workers=[], conversations=0)
    return Response(parts.metrics.render(snapshot), media_type=CONTENT_TYPE_LATEST)


def _snapshot(conn: Connection, owner: str) -> Snapshot:
    return Snapshot(
        up=True,
        lanes=reading.lane_depths(conn),
        workers=fleet.workers(conn),
        conversations=overview.conversation_count(conn, owner),
    )


def _model_stats(model: str, workers: list[WorkerRecord]) -> ModelStats:
    """Of the worker that was heard of last among those that serve the configured model."""
    serving = [worker for worker in workers if worker.model == model]
    if not serving:
        return ModelStats(name=model, loaded=False)
    newest = min(serving, key=lambda worker: worker.age)
    return ModelStats(
        name=_text(newest, "name", model),
        loaded=True,
        parameters=_number(newest, "parameters"),
        memory_footprint=_number(newest, "memory_bytes"),
        device=_text(newest, "device", "unknown"),
        quantization=_text(newest, "quantization", "unknown"),
        context=_number(newest, "context"),
        runner=_text(newest, "runner", "unknown"),
        notes=_texts(newest, "notes"),
        max_rows=_number(newest, "max_rows"),
        express_rows=_number(newest, "express_rows"),
        step_tokens=_number(newest, "step_tokens"),
        kv_tokens=_number(newest, "kv_tokens"),
        kv_bytes=_number(newest, "kv_bytes"),
    )


def _text(worker: WorkerRecord, name: str, default: str) -> str:
    value = worker.info.get(name)
    return value if isinstance(value, str) else default


def _texts(worker: WorkerRecord, name: str) -> list[str]:
    value = worker.info.get(name)
    return [str(part) for part in value] if isinstance(value, list) else []


def _number(worker: WorkerRecord, name: str) -> int | None:
    value = worker.info.get(name)
    return value if isinstance(value, int) else None
