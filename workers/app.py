"""Celery and its settings. Messages are hints: PostgreSQL is the queue. Knows no torch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from celery import Celery
from kombu import Queue

from workers import broker

SETTINGS: Final[dict[str, Any]] = {
    # A hint needs no redelivery. Late acks crash this release when Redis goes away with one
    # message unacked, and run a task twice after a dropped connection.
    "task_acks_late": False,
    # A message is taken only with a free thread, so none sits with a busy worker.
    "worker_disable_prefetch": True,
    "worker_prefetch_multiplier": 1,
    # One engine in the process; a fork after torch ran its threads hangs, solo blocks events.
    "worker_pool": "threads",
    # Results live in PostgreSQL. Flower still shows what a task returns.
    "task_ignore_result": True,
    "result_backend": None,
    # A pickle message is refused, not executed.
    "task_serializer": "json",
    "result_serializer": "json",
    "accept_content": ["json"],
    # The default gives up after 100 tries; an answer READONLY or OOM must not end a worker.
    "broker_connection_retry_on_startup": True,
    "broker_connection_max_retries": None,
    "broker_channel_error_retry": True,
    # The dispatcher has its own loop and backoff.
    "task_publish_retry": False,
    # Only queues we declare: a misspelt one is an error, not a silent hole.
    "task_create_missing_queues": False,
    # Flower needs these.
    "worker_send_task_events": True,
    "task_send_sent_event": True,
    "worker_enable_remote_control": True,  # `workers.control` says what is answered
    # The longer shutdowns are not implemented on threads; our own drain ends the tasks.
    "worker_soft_shutdown_timeout": 0,
    # Logs are ours.
    "worker_hijack_root_logger": False,
    "worker_redirect_stdouts": False,
    "enable_utc": True,
    "timezone": "UTC",
}

TRANSPORT: Final[dict[str, Any]] = {
    # Fast recovery of what a killed worker took and did not ack.
    "visibility_timeout": 60,
    "unacked_restore_interval": 10,
    "unacked_restore_throttle": 1,
    # Without these a publish on a half-open socket waits for ever.
    "socket_timeout": 10,
    "socket_connect_timeout": 3,
    "socket_keepalive": True,
    "health_check_interval": 10,
}


def make_app(broker_url: str, key_prefix: str, queues: Sequence[Queue] = ()) -> Celery:
    """A Celery application on this broker that consumes `queues`, if any."""
    broker.install()
    app = Celery("penstock", broker=broker_url, set_as_current=False)
    app.conf.update(SETTINGS)
    app.conf.broker_transport_options = {**TRANSPORT, "global_keyprefix": key_prefix}
    if queues:
        app.conf.task_queues = list(queues)
    return app
