"""What a worker answers over the broker: questions of Flower's, and no order.

Celery would also end itself, stop consuming or run slower for whoever reaches Redis.
"""

from __future__ import annotations

from typing import Any, Final

from celery.worker.control import Panel

QUESTIONS: Final = frozenset(
    {"active", "active_queues", "conf", "ping", "registered", "reserved", "revoked"}
    | {"scheduled", "stats"}
)


def answer_questions_alone() -> None:
    """For every Celery worker of this process. Idempotent."""
    for name in Panel.data.keys() - QUESTIONS:
        del Panel.data[name]
    Panel.data["stats"] = _stats


def _stats(state: Any, **_: object) -> dict[str, Any]:
    """Celery's own, but for the broker's address: of a unix socket it has the password in it."""
    return {**state.consumer.controller.stats(), "broker": {"transport": "redis"}}
