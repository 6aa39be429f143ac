"""`/healthz`, `/readyz`, `/health`, `/stats`, `/metrics`: how the service is."""

from __future__ import annotations

from fastapi import APIRouter
from prometheus_client import CONTENT_TYPE_LATEST
from sqlalchemy import Connection
from starlette.responses import JSONResponse, Response

from api import openapi
from api.config import ApiConfig
from api.dependencies import Owner, PartsDep
from api.metrics import Snapshot
from api.model_service import newest_serving
from api.probes import OK
from api.scopes import needs
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
from storage import conversations, deliveries, fleet, overview, reading, response_cache
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


@router.get("/health", responses=openapi.errors(), dependencies=[needs()])
async def health(parts: PartsDep) -> Health:
    """Whether a model is loaded, and on what."""
    alive, active, answers = await parts.offload.read(
        lambda conn: (
            fleet.workers(conn),
            conversations.active_count(conn),
            response_cache.size(conn),
        )
    )
    newest = newest_serving(alive, parts.config)
    return Health(
        status=OK if newest else "degraded",
        model=newest.model if newest else parts.config.model,
        model_loaded=newest is not None,
        active_conversations=active,
        gpu_available=any(_text(w, "device", "").startswith("cuda") for w in alive),
        cache_size=answers,
        workers=len(alive),
        version=__version__,
    )


@router.get("/stats", responses=openapi.errors(), dependencies=[needs()])
async def stats(parts: PartsDep, owner: Owner) -> Stats:
    """Conversations, queue, model and workers in figures."""
    now, own, answers = await parts.offload.read(
        lambda conn: (
            _snapshot(conn),
            overview.conversation_count(conn, owner),
            response_cache.size(conn),
        )
    )
    return Stats(
        conversations=own,
        active_conversations=now.active,
        cache=CacheStats(
            size=answers,
            hits=_total(now.workers, "cache_hits"),
            misses=_total(now.workers, "cache_misses"),
            saved_tokens=_total(now.workers, "saved_tokens"),
        ),
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
        model=_model_stats(parts.config, now.workers),
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
        snapshot = await parts.offload.read(_snapshot, limit=SCRAPE_LIMIT)
    except Unavailable:
        snapshot = Snapshot(up=False, lanes=[], workers=[], active=0)
    return Response(parts.metrics.render(snapshot), media_type=CONTENT_TYPE_LATEST)


def _snapshot(conn: Connection) -> Snapshot:
    return Snapshot(
        up=True,
        lanes=reading.lane_depths(conn),
        workers=fleet.workers(conn),
        active=conversations.active_count(conn),
        webhooks=deliveries.outcomes(conn),
    )


def _model_stats(config: ApiConfig, workers: list[WorkerRecord]) -> ModelStats:
    """Of the worker that was heard of last among those that serve a configured model."""
    newest = newest_serving(workers, config)
    if newest is None:
        return ModelStats(name=config.model, loaded=False)
    return ModelStats(
        name=_text(newest, "name", newest.model),
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
        min_prefix=_number(newest, "min_prefix"),
        kv_tokens=_number(newest, "kv_tokens"),
        kv_bytes=_number(newest, "kv_bytes"),
        revision=_text(newest, "revision", "") or None,
        dtype=_text(newest, "dtype", "") or None,
        device_name=_text(newest, "device_name", "") or None,
        versions=_by_name(newest, "versions") or {},
        weights=_by_name(newest, "weights"),
    )


def _total(workers: list[WorkerRecord], name: str) -> int:
    """A count, of all workers that live."""
    counts = (worker.stats.get(name) for worker in workers)
    return sum(count for count in counts if isinstance(count, int))


def _text(worker: WorkerRecord, name: str, default: str) -> str:
    value = worker.info.get(name)
    return value if isinstance(value, str) else default


def _texts(worker: WorkerRecord, name: str) -> list[str]:
    value = worker.info.get(name)
    return [str(part) for part in value] if isinstance(value, list) else []


def _by_name(worker: WorkerRecord, name: str) -> dict[str, str] | None:
    value = worker.info.get(name)
    return {key: str(one) for key, one in value.items()} if isinstance(value, dict) else None


def _number(worker: WorkerRecord, name: str) -> int | None:
    value = worker.info.get(name)
    return value if isinstance(value, int) else None
