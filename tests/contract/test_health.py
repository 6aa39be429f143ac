"""Probes, statistics and metrics."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from prometheus_client.parser import text_string_to_metric_families
from starlette.testclient import TestClient

from api.app import create_app
from storage.database import Database
from tests.contract.conftest import CONFIG
from tests.contract.support import post
from tests.support import jobs
from workers.queues import WakeUps


@pytest.fixture
def without_broker(database: Database) -> Iterator[TestClient]:
    """The application with a broker that nobody listens for."""
    wake_ups = WakeUps("redis://127.0.0.1:1/0", "test:")
    with TestClient(create_app(CONFIG, database, wake_ups)) as client:
        yield client
    wake_ups.close()


def test_alive_is_asked_of_nobody_else(client: TestClient) -> None:
    answer = client.get("/healthz")

    assert (answer.status_code, answer.json()) == (200, {"status": "ok"})


def test_ready_with_database_broker_and_worker(client: TestClient, registered: None) -> None:
    answer = client.get("/readyz")

    assert answer.json() == {
        "status": "ok",
        "checks": {"database": "ok", "broker": "ok", "worker": "ok"},
    }
    assert answer.status_code == 200


def test_not_ready_without_a_worker(client: TestClient) -> None:
    answer = client.get("/readyz")

    assert answer.status_code == 503
    assert answer.json()["checks"] == {
        "database": "ok",
        "broker": "ok",
        "worker": "no live worker serves fake",
    }
    assert answer.headers["Retry-After"]


def test_without_a_broker_it_is_not_ready_and_takes_jobs_all_the_same(
    without_broker: TestClient,
) -> None:
    ready = without_broker.get("/readyz")

    assert (ready.status_code, ready.json()["checks"]["broker"]) == (503, "no answer")
    assert post(without_broker, "a")


def test_health_tells_of_model_and_gpu(
    client: TestClient, database: Database, registered: None
) -> None:
    assert client.get("/health").json() == {
        "status": "ok",
        "model": jobs.MODEL,
        "model_loaded": True,
        "gpu_available": True,
        "cache_size": 0,
        "active_conversations": 0,
        "workers": 1,
        "version": "0.1.0",
    }
    with database.begin() as conn:
        conn.exec_driver_sql("UPDATE workers SET beat_at = now() - interval '31 seconds'")
    assert client.get("/health").json()["status"] == "degraded"


def test_stats_tell_of_queue_conversations_model_and_workers(
    client: TestClient, registered: None
) -> None:
    post(client, *"abc")
    client.post("/chat", json={"message": "hi", "wait": False, "conversation_id": "c"})

    stats = client.get("/stats").json()

    assert (stats["conversations"], stats["queue_depth"]) == (1, 4)
    assert (
        stats["active_conversations"] == client.get("/health").json()["active_conversations"] == 1
    )
    assert [(q["lane"], q["open_requests"]) for q in stats["queue"]] == [
        ("bulk", 3),
        ("express", 1),
    ]
    assert stats["cache"]["size"] == 0
    assert stats["model"] == {
        "name": jobs.MODEL,
        "loaded": True,
        "parameters": 7,
        "memory_footprint": 4096,
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
    assert stats["workers"][0]["stats"]["tokens_per_s"] == 12.5


def test_stats_without_a_worker_say_that_nothing_is_loaded(client: TestClient) -> None:
    stats = client.get("/stats").json()

    assert (stats["model"]["loaded"], stats["workers"]) == (False, [])


def _samples(text: str) -> dict[tuple[str, str], float]:
    return {
        (sample.name, sample.labels.get("lane", "")): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_metrics_tell_of_queue_workers_and_this_process(
    client: TestClient, registered: None
) -> None:
    post(client, *"abc")

    answer = client.get("/metrics")

    found = _samples(answer.text)
    assert answer.headers["Content-Type"].startswith("text/plain")
    assert found["penstock_database_up", ""] == 1
    assert found["penstock_queue_depth", "bulk"] == 3
    assert found["penstock_queue_age_seconds", "bulk"] >= 0
    assert found["penstock_worker_tokens_per_s", ""] == 12.5
    assert found["penstock_worker_running", "bulk"] == 3
    assert found["penstock_worker_ttft_seconds", "express"] == 0.25
    assert found["penstock_worker_queue_age_seconds", "bulk"] == 4
    assert found["penstock_worker_time_per_token_seconds", ""] == 0.05
    assert found["penstock_worker_padded_share_keys", ""] == 0.1
    assert found["penstock_worker_kv_used", ""] == 512
    assert found["penstock_worker_lease_losses_total", ""] == 2
    assert found["penstock_worker_repeats_total", ""] == 5
    assert found["cpu_usage_percent", ""] == 37.5
    assert found["gpu_memory_usage_bytes", ""] == 4096
    assert found["active_conversations", ""] == 0
    assert found["inference_requests_total", ""] == 3
    assert found["http_requests_total", ""] >= 1
    assert found["process_resident_memory_bytes", ""] > 0


def test_a_chat_is_counted_and_timed(client: TestClient, worker: None) -> None:
    client.post("/chat", json={"message": "hello"})

    found = _samples(client.get("/metrics").text)

    assert found["inference_request_duration_seconds_count", ""] == 1
