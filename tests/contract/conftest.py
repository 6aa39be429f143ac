"""The application over a real PostgreSQL and Redis, with and without a worker."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from api.app import create_app
from api.config import ApiConfig
from storage import fleet
from storage.blobs import LocalBlobs
from storage.database import Database
from tests.contract.support import serving, working
from tests.support import jobs
from workers.queues import WakeUps

CONFIG = ApiConfig(
    model=jobs.MODEL,
    max_body_bytes=2_000_000,
    max_prompts=1_000,
    max_prompt_bytes=10_000,
    max_bytes_in_flight=8_000_000,
    chat_timeout=20,
)

#: Makes clients of an application with other limits: `make_client(max_prompts=5)`.
MakeClient = Callable[..., TestClient]


@pytest.fixture
def wake_ups(redis_url: str) -> Iterator[WakeUps]:
    opened = WakeUps(redis_url, "test:")
    yield opened
    opened.close()


@pytest.fixture
def blobs(tmp_path: Path) -> LocalBlobs:
    return LocalBlobs(tmp_path / "blobs")


@pytest.fixture
def make_client(database: Database, wake_ups: WakeUps, blobs: LocalBlobs) -> Iterator[MakeClient]:
    opened: list[TestClient] = []

    def make(**limits: object) -> TestClient:
        config = replace(CONFIG, **limits)  # type: ignore[arg-type]
        client = TestClient(create_app(config, database, wake_ups, blobs))
        client.__enter__()
        opened.append(client)
        return client

    yield make
    for client in opened:
        client.__exit__(None, None, None)


@pytest.fixture
def client(make_client: MakeClient) -> TestClient:
    return make_client()


@pytest.fixture
def worker(database: Database) -> Iterator[None]:
    with working(database):
        yield


@pytest.fixture
def registered(database: Database) -> None:
    """A live worker's row."""
    info = {
        "name": jobs.MODEL,
        "parameters": 7,
        "memory_bytes": 4096,
        "device": "cuda:0",
        "quantization": "int4",
        "context": 128,
        "runner": "packed",
        "notes": ["graphs are off"],
        "max_rows": 64,
        "express_rows": 8,
        "step_tokens": 256,
        "min_prefix": 32,
        "kv_tokens": 1024,
        "kv_bytes": 2048,
        "revision": "5b1f",
        "dtype": "bf16",
        "device_name": "NVIDIA H100",
        "versions": {"torch": "2.12.0"},
        "weights": {"model.safetensors": "0f" * 32},
    }
    stats = {
        "tokens_per_s": 12.5,
        "running": {"bulk": 3, "express": 1},
        "ttft": {"bulk": 1.5, "express": 0.25},
        "oldest_waiting": {"bulk": 4.0, "express": 0.0},
        "time_per_token": 0.05,
        "padded_share_keys": 0.1,
        "lease_losses": 2,
        "repeats": 5,
        "cpu_usage_percent": 37.5,
        "gpu_memory_usage_bytes": 4096,
        "kv_used": 512,
        "draining": False,
    }
    with database.begin() as conn:
        fleet.register(conn, "slot-1", "boot-1", jobs.MODEL, info)
        assert fleet.beat(conn, "slot-1", "boot-1", stats)


@pytest.fixture
def live(database: Database, wake_ups: WakeUps, blobs: LocalBlobs) -> Iterator[str]:
    """The application under uvicorn on a port of its own, for what needs a real connection."""
    with serving(create_app(CONFIG, database, wake_ups, blobs)) as url:
        yield url
