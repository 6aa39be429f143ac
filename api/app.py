"""The application and its composition root: builds the parts, wires the routes, serves.

`create_app` takes plain values; only `serve` reads settings.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI
from prometheus_fastapi_instrumentator import Instrumentator

from api import errors, openapi, server
from api.body import BodyBudget
from api.config import ApiConfig
from api.dependencies import Parts, hash_key
from api.metrics import Metrics
from api.middleware import OwnNamesOnly, RequestContext
from api.offload import Offload
from api.probes import Probes
from api.routes import batches, chat, health, results
from api.waiting import Waiters
from penstock import __version__, telemetry
from penstock.errors import StackError
from penstock.hosts import is_loopback
from penstock.settings import QueueSettings, Settings
from storage.database import Database
from storage.quota import Amount, Limits
from storage.states import Lane
from workers.queues import WakeUps

log = telemetry.get_logger(__name__)


def create_app(config: ApiConfig, database: Database, wake_ups: WakeUps) -> FastAPI:
    """The whole HTTP side over parts that the caller owns and closes."""
    metrics = Metrics()
    waiters = Waiters(database, config.max_waiting)
    metrics.waiting.set_function(lambda: waiters.count)
    parts = Parts(
        config=config,
        offload=Offload(database, config.database_connections),
        wake_ups=wake_ups,
        waiters=waiters,
        budget=BodyBudget(config.max_bytes_in_flight),
        metrics=metrics,
        probes=Probes(database, wake_ups, config.model),
    )

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        waiters.start()
        yield
        await parts.offload.parse(waiters.close)

    app = FastAPI(
        title="Penstock",
        version=__version__,
        summary="Batch and chat inference from a durable queue.",
        lifespan=lifespan,
        redoc_url=None,
        redirect_slashes=False,
    )
    app.state.parts = parts
    for module in (batches, results, chat, health):
        app.include_router(module.router)
    errors.install(app)
    openapi.install(app)
    Instrumentator(
        registry=metrics.registry, excluded_handlers=["/metrics", "/healthz"]
    ).instrument(app)
    if config.own_names_only:
        app.add_middleware(OwnNamesOnly)
    app.add_middleware(RequestContext)  # last, so outermost
    return app


def serve(settings: Settings) -> None:
    """Serve until a signal. Raises `StackError` when it cannot start."""
    config = _config(settings)
    if settings.database.url is None:
        raise StackError("PENSTOCK_DATABASE__URL is not set.")
    if settings.broker.url is None:
        raise StackError("PENSTOCK_BROKER__URL is not set.")
    host = settings.api.host
    if not config.key_hashes and not is_loopback(host):
        raise StackError(f"The API listens on {host} only with keys: set PENSTOCK_API__KEYS.")
    listener = server.bind(host, settings.api.port)
    telemetry.configure(settings.log.level, settings.log.format)
    if not config.key_hashes:
        log.warning("api.open", detail="no keys are set: whoever is on this machine may use it")
    database = Database(
        settings.database.url.get_secret_value(),
        pool_size=settings.database.pool_size,
        statement_timeout=settings.database.statement_timeout,
        connect_timeout=settings.database.connect_timeout,
        application_name="penstock-api",
    )
    wake_ups = WakeUps(settings.broker.url.get_secret_value(), settings.broker.key_prefix)
    try:
        app = create_app(config, database, wake_ups)
        address, port = listener.getsockname()[:2]
        log.info("api.listening", host=address, port=port, model=config.model)
        server.run(app, listener, app.state.parts.waiters.release)
    finally:
        listener.close()
        wake_ups.close()
        database.close()
    log.info("api.stopped")


def _config(settings: Settings) -> ApiConfig:
    api = settings.api
    return ApiConfig(
        model=settings.model.public_name,
        key_hashes=tuple(hash_key(key.get_secret_value()) for key in api.keys),
        own_names_only=not api.keys,
        max_body_bytes=api.max_body_bytes,
        max_prompts=api.max_prompts,
        max_prompt_bytes=api.max_prompt_bytes,
        max_bytes_in_flight=api.max_bytes_in_flight,
        max_waiting=api.max_waiting,
        chat_timeout=api.chat_timeout,
        max_history_turns=api.max_history_turns,
        limits=_limits(settings.queue),
        database_connections=settings.database.pool_size,
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
