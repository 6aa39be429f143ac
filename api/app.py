"""The application and its composition root: builds the parts, wires the routes, serves.

`create_app` takes plain values; only `serve` reads settings.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI
from prometheus_fastapi_instrumentator import Instrumentator

from api import errors, openai_errors, openapi, server, sweeping
from api.access_token import HideAccessToken
from api.batch_reader import BatchReader
from api.body import BodyBudget
from api.callers import Callers
from api.config import ApiConfig
from api.current import Rates
from api.departures import Departures
from api.dependencies import Parts, hash_key
from api.metrics import Metrics
from api.middleware import OwnNamesOnly, RequestContext
from api.offload import Offload
from api.pieces import Pieces
from api.probes import Probes
from api.rates import RateLimiter
from api.routes import (
    batches,
    cache,
    chat,
    chat_socket,
    chat_stream,
    completions,
    conversations,
    deliveries,
    files,
    health,
    job_events,
    model_service,
    model_stream,
    models,
    openai_batches,
    results,
    webhooks,
)
from api.waiting import Waiters
from penstock import __version__, telemetry
from penstock.errors import StackError, Unavailable
from penstock.hosts import is_loopback
from penstock.settings import QueueSettings, Settings
from storage import keys
from storage.blobs import Blobs, LocalBlobs, NoBlobs
from storage.client_cache import OwnerBounds
from storage.database import Database
from storage.files import FileLimits
from storage.quota import Amount, Limits
from storage.s3_blobs import S3Blobs
from storage.states import Lane
from workers.addresses import Policy, parse_networks
from workers.queues import WakeUps

log = telemetry.get_logger(__name__)

_NO_KEYS = (
    "The API listens on {host} only with keys: set PENSTOCK_API__KEYS, or make one with "
    "`penstock keys create` and set PENSTOCK_API__KEY_SECRET."
)

#: In the order of the documentation.
ROUTES = (
    batches,
    results,
    job_events,
    chat,
    chat_stream,
    chat_socket,
    conversations,
    cache,
    model_service,
    model_stream,
    completions,
    models,
    files,
    openai_batches,
    webhooks,
    deliveries,
    health,
)


def create_app(
    config: ApiConfig, database: Database, wake_ups: WakeUps, blobs: Blobs | None = None
) -> FastAPI:
    """The whole HTTP side over parts that the caller owns and closes. Without `blobs` no file can
    be uploaded."""
    metrics = Metrics()
    offload = Offload(database, config.database_connections)
    blobs = blobs or NoBlobs()
    waiters = Waiters(database, config.max_waiting)
    metrics.waiting.set_function(lambda: waiters.count)
    parts = Parts(
        config=config,
        offload=offload,
        wake_ups=wake_ups,
        waiters=waiters,
        budget=BodyBudget(config.max_bytes_in_flight),
        metrics=metrics,
        probes=Probes(database, wake_ups, config.models),
        blobs=blobs,
        reader=BatchReader(
            config=config, offload=offload, blobs=blobs, wake_ups=wake_ups, metrics=metrics
        ),
        callers=Callers(config, offload),
        rates=RateLimiter(config.redis_url, config.redis_prefix),
        pieces=Pieces(wake_ups.broker_url, wake_ups.key_prefix),
        departures=Departures(),
    )

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        waiters.start()
        parts.reader.start()
        parts.pieces.start()
        sweeper = asyncio.create_task(sweeping.sweep_for_ever(offload, blobs))
        yield
        sweeper.cancel()
        await parts.departures.close()  # before Redis
        await asyncio.gather(
            sweeper,
            parts.reader.close(),
            parts.pieces.close(),
            parts.callers.close(),
            parts.rates.close(),
            parts.offload.parse(waiters.close),
            return_exceptions=True,
        )

    app = FastAPI(
        title="Penstock",
        version=__version__,
        summary="Batch and chat inference from a durable queue.",
        lifespan=lifespan,
        redoc_url=None,
        redirect_slashes=False,
    )
    app.state.parts = parts
    for module in ROUTES:
        app.include_router(module.router)
    errors.install(app)
    openai_errors.install(app)
    openapi.install(app)
    Instrumentator(
        registry=metrics.registry, excluded_handlers=["/metrics", "/healthz"]
    ).instrument(app)
    if config.own_names_only:
        app.add_middleware(OwnNamesOnly, asks_for_keys=parts.callers.are_asked)
    app.add_middleware(RequestContext)
    app.add_middleware(HideAccessToken)  # last, so outermost
    return app


def serve(settings: Settings) -> None:
    """Serve until a signal. Raises `StackError` when it cannot start."""
    config = _config(settings)
    if settings.database.url is None:
        raise StackError("PENSTOCK_DATABASE__URL is not set.")
    if settings.broker.url is None:
        raise StackError("PENSTOCK_BROKER__URL is not set.")
    host = settings.api.host
    if config.keys_required and config.key_secret is None:
        raise StackError(_NO_KEYS.format(host=host))
    listener = server.bind(host, settings.api.port)
    telemetry.configure(settings.log.level, settings.log.format)
    database = Database(
        settings.database.url.get_secret_value(),
        pool_size=settings.database.pool_size,
        statement_timeout=settings.database.statement_timeout,
        connect_timeout=settings.database.connect_timeout,
        application_name="penstock-api",
    )
    wake_ups = WakeUps(settings.broker.url.get_secret_value(), settings.broker.key_prefix)
    try:
        _look_for_keys(config, database, host)
        app = create_app(config, database, wake_ups, _blobs(settings))
        address, port = listener.getsockname()[:2]
        log.info("api.listening", host=address, port=port, model=config.model)
        server.run(app, listener, app.state.parts.waiters.release)
    finally:
        listener.close()
        wake_ups.close()
        database.close()
    log.info("api.stopped")


def _look_for_keys(config: ApiConfig, database: Database, host: str) -> None:
    """Say who may use this. Raises `StackError` where nobody could, or `Unavailable`."""
    if config.key_hashes:
        return
    try:
        with database.begin() as conn:
            made, in_use = keys.any_made(conn), keys.any_in_use(conn)
    except Unavailable:
        if config.keys_required:
            raise
        return
    if config.keys_required and not in_use:
        raise StackError(_NO_KEYS.format(host=host))
    if made and config.key_secret is None:
        log.warning("keys.unreadable", detail="PENSTOCK_API__KEY_SECRET is not set: none is taken")
    elif not made:
        log.warning("api.open", detail="no keys are set: whoever is on this machine may use it")


def _config(settings: Settings) -> ApiConfig:
    api, broker = settings.api, settings.broker
    return ApiConfig(
        model=settings.model.public_name,
        choices=frozenset(settings.model.models) - {settings.model.public_name},
        key_hashes=tuple(hash_key(key.get_secret_value()) for key in api.keys),
        key_secret=None if api.key_secret is None else api.key_secret.get_secret_value(),
        keys_required=not api.keys and not is_loopback(api.host),
        own_names_only=not api.keys and is_loopback(api.host),
        rates=Rates(api.requests_per_minute, api.tokens_per_minute),
        redis_url=None if broker.url is None else broker.url.get_secret_value(),
        redis_prefix=broker.key_prefix,
        max_body_bytes=api.max_body_bytes,
        max_prompts=api.max_prompts,
        max_prompt_bytes=api.max_prompt_bytes,
        max_bytes_in_flight=api.max_bytes_in_flight,
        max_waiting=api.max_waiting,
        chat_timeout=api.chat_timeout,
        max_history_turns=api.max_history_turns,
        limits=_limits(settings.queue),
        max_file_bytes=settings.blobs.max_file_bytes,
        file_lifetime=settings.blobs.lifetime,
        file_limits=FileLimits(settings.blobs.owner_files, settings.blobs.owner_bytes),
        receivers=Policy(parse_networks(settings.webhooks.allowed_networks)),
        cache_bounds=OwnerBounds(settings.cache.owner_keys, settings.cache.owner_bytes),
        max_value_bytes=settings.cache.max_value_bytes,
        max_cache_ttl=settings.cache.max_ttl,
        database_connections=settings.database.pool_size,
    )


def _blobs(settings: Settings) -> Blobs:
    kept = settings.blobs
    if kept.s3_bucket is None:
        return LocalBlobs(settings.blob_folder)
    return S3Blobs(
        kept.s3_bucket, prefix=kept.s3_prefix, endpoint=kept.s3_endpoint, region=kept.s3_region
    )


def _limits(queue: QueueSettings) -> dict[Lane, Limits]:
    """A chat is a job of one prompt, in a lane with bounds of its own."""
    return {
        Lane.BULK: Limits(
            owner=Amount(queue.owner_jobs, queue.owner_prompts, queue.owner_bytes),
            total=Amount(queue.jobs, queue.prompts, queue.bytes),
        ),
        Lane.EXPRESS: Limits(
            owner=Amount(queue.owner_chats, queue.owner_chats, queue.owner_bytes),
            total=Amount(queue.chats, queue.chats, queue.bytes),
        ),
    }
