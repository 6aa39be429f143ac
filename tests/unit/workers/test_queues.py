"""Names of queues, and the settings that the durability of the rest leans on."""

from __future__ import annotations

import subprocess
import sys

import pytest

from workers.app import SETTINGS, make_app
from workers.queues import LANES, make_queue, queue_name


@pytest.mark.parametrize(
    ("model", "name"),
    [
        ("penstock-tiny", "gpu.penstock-tiny.bulk"),
        ("Qwen/Qwen3-0.6B", "gpu.Qwen-Qwen3-0.6B.bulk"),
        ("a b:c\n", "gpu.a-b-c-.bulk"),
    ],
)
def test_a_queue_name_holds_only_what_a_key_should(model: str, name: str) -> None:
    assert queue_name(model, "bulk") == name


def test_queues_use_the_anonymous_exchange_which_no_flush_can_unbind() -> None:
    queue = make_queue("m", "express")
    assert (queue.exchange.name, queue.routing_key) == ("", queue.name)


def test_the_application_takes_json_only_acks_early_and_keeps_no_results() -> None:
    app = make_app("redis://localhost:1/0", "p:", [make_queue("m", lane) for lane in LANES])
    assert app.conf.accept_content == ["json"]
    assert not app.conf.task_acks_late
    assert app.conf.task_ignore_result
    assert app.conf.worker_disable_prefetch
    assert app.conf.broker_connection_max_retries is None
    assert not app.conf.task_create_missing_queues
    assert app.conf.broker_transport_options["global_keyprefix"] == "p:"
    assert {queue.name for queue in app.conf.task_queues} == {"gpu.m.bulk", "gpu.m.express"}
    assert SETTINGS["worker_pool"] == "threads"


def test_queues_and_dispatcher_load_no_torch() -> None:
    code = "import sys, workers.queues, workers.dispatcher; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
