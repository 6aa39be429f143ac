"""Which processes make up a stack, in which order they start and stop, and how each is asked.

Knows the settings and the commands; starts nothing.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from penstock.keys import KeySigner
from penstock.settings import ApiSettings, Settings
from penstock.stack.child import ChildSpec
from penstock.stack.directory import DataDir
from penstock.stack.model import CHECKOUT, is_local
from penstock.stack.postgres import EmbeddedPostgres
from penstock.stack.probe import get, get_json
from penstock.stack.redis import EmbeddedRedis

#: Intake first, then the work in flight; the truth goes last.
STOP_ORDER = ("api", "worker", "dispatcher", "flower", "migrate", "redis", "postgres")
_LOCAL_LOAD = 900.0  # seconds for a worker to load what is on the disk
_HUB_LOAD = 3600.0  # seconds with a download before it
#: Variables that hold secrets begin like this; the roles that need them, and no other gets them.
_NEEDED_BY = {
    "PENSTOCK_DATABASE": ("migrate", "api", "dispatcher", "worker"),
    "PENSTOCK_BROKER": ("api", "dispatcher", "worker", "flower"),
    "PENSTOCK_API": ("api",),
    "PENSTOCK_FLOWER": ("flower",),
    "HF_TOKEN": ("worker",),
    "HUGGING_FACE_HUB_TOKEN": ("worker",),
}


@dataclass(frozen=True, slots=True)
class Plan:
    """The children in starting order, and where their stores are."""

    specs: tuple[ChildSpec, ...]
    stop_order: tuple[str, ...]
    #: URLs of the embedded stores; None where the user named one.
    database_url: str | None
    broker_url: str | None


def make_plan(settings: Settings, directory: DataDir, say: Callable[[str], None]) -> Plan:
    """The stack that these settings ask for; lays out a new database where there is none."""
    # The children run the code of this checkout, wherever the user stands.
    paths = [str(CHECKOUT), os.environ.get("PYTHONPATH", "")]
    environment = dict(os.environ) | {
        "PYTHONPATH": os.pathsep.join(filter(None, paths)),
        "PENSTOCK_DATA_DIR": str(directory.root),
        "PENSTOCK_MODEL__NAME": settings.model.name,
        "PENSTOCK_API__PORT": str(settings.api.port),
        "PENSTOCK_FLOWER__PORT": str(settings.flower.port),
    }
    if settings.api.key_secret is not None:
        environment["PENSTOCK_API__KEY_SECRET"] = settings.api.key_secret.get_secret_value()
    stores: list[ChildSpec] = []
    database_url = broker_url = None
    if settings.database.url is None:
        postgres = EmbeddedPostgres(directory, say)
        postgres.initialize()
        stores.append(postgres.spec())
        database_url = environment["PENSTOCK_DATABASE__URL"] = postgres.url
    if settings.broker.url is None:
        redis = EmbeddedRedis(directory)
        stores.append(redis.spec())
        broker_url = environment["PENSTOCK_BROKER__URL"] = redis.url
    specs = (*stores, *_roles(settings, environment))
    names = {spec.name for spec in specs}
    return Plan(
        specs=specs,
        stop_order=tuple(name for name in STOP_ORDER if name in names),
        database_url=database_url,
        broker_url=broker_url,
    )


def _roles(settings: Settings, environment: dict[str, str]) -> tuple[ChildSpec, ...]:
    api, flower = settings.api, settings.flower
    return (
        ChildSpec(
            "migrate",
            _penstock("migrate"),
            _only_needed("migrate", environment),
            once=True,
            start_limit=300,
        ),
        ChildSpec(
            "api",
            _penstock("serve"),
            _only_needed("api", environment),
            ready=partial(_answers, api.host, api.port, "/healthz"),
            barrier=False,
            stop=((signal.SIGTERM, 15),),
        ),
        ChildSpec(
            "dispatcher",
            _penstock("dispatch"),
            _only_needed("dispatcher", environment),
            barrier=False,
        ),
        ChildSpec(
            "worker",
            _penstock("worker"),
            _only_needed("worker", environment),
            ready=partial(_worker_beats, settings.api, time.monotonic()),
            start_limit=_LOCAL_LOAD if is_local(settings.model.name) else _HUB_LOAD,
            barrier=False,
            # One prompt that kills it may end five lives in a row, and the whole queue waits.
            longest_pause=2,
            # It ends itself 15 s after its grace period at the latest.
            stop=((signal.SIGTERM, settings.worker.grace + 20),),
        ),
        ChildSpec(
            "flower",
            _penstock("flower"),
            _only_needed("flower", environment),
            ready=partial(_answers, flower.host, flower.port, "/healthcheck"),
            barrier=False,
            stop=((signal.SIGTERM, 5),),
        ),
    )


def _only_needed(role: str, environment: dict[str, str]) -> dict[str, str]:
    """The environment without the secrets of other roles."""
    foreign = tuple(start for start, roles in _NEEDED_BY.items() if role not in roles)
    return {name: v for name, v in environment.items() if not name.upper().startswith(foreign)}


def _penstock(command: str) -> tuple[str, ...]:
    # -P: a folder `models` or `api` where the user happens to stand must not hide ours.
    return (sys.executable, "-P", "-m", "penstock", command)


def _worker_beats(api: ApiSettings, since: float) -> bool:
    """All is ready, and a worker was heard of since then: an earlier run's may still be listed."""
    if not _answers(api.host, api.port, "/readyz"):
        return False
    workers = get_json(api.host, api.port, "/stats", bearer(api)).get("workers")
    elapsed = time.monotonic() - since
    return isinstance(workers, list) and any(
        isinstance(worker, dict) and worker.get("heartbeat_age", elapsed) < elapsed
        for worker in workers
    )


def bearer(api: ApiSettings) -> dict[str, str]:
    """The header with which this stack asks its own API."""
    if api.keys:
        return {"Authorization": f"Bearer {api.keys[0].get_secret_value()}"}
    if api.key_secret is not None:
        return {"Authorization": f"Bearer {KeySigner(api.key_secret.get_secret_value()).own()}"}
    return {}


def _answers(host: str, port: int, path: str) -> bool:
    return get(host, port, path) is not None
