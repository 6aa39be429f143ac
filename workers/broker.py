"""Redis as Celery's transport, where nobody is ended by what is no message of ours.

Celery's own process ends at bytes that it does not expect. Here a queue of wake-ups gives wake-ups
alone, anything else JSON in its envelope alone, and the rest is dropped. Knows no task.
"""

from __future__ import annotations

from queue import Empty
from typing import Any, Final

from kombu.transport import TRANSPORT_ALIASES, redis

from penstock.telemetry import get_logger
from workers.messages import LANES, is_envelope, wake_up

log = get_logger(__name__)

WAKE_UPS: Final = "gpu."  #: what the names of their queues begin with


class Channel(redis.Channel):  # type: ignore[misc]  # kombu is half-typed
    """One on which bytes that are not JSON are as good as none."""

    def _brpop_read(self, **options: Any) -> Any:
        return _unless_garbage(super()._brpop_read, **options)

    def _receive_one(self, c: Any) -> Any:
        return _unless_garbage(super()._receive_one, c)


class Transport(redis.Transport):  # type: ignore[misc]
    """For `redis://`, `rediss://` and `redis+socket://`."""

    Channel = Channel

    def _deliver(self, message: object, queue: str) -> None:
        if queue.startswith(WAKE_UPS) and queue.endswith(LANES):
            message = wake_up(message, queue)
        if is_envelope(message):
            super()._deliver(message, queue)
        else:
            log.warning("message.refused", queue=queue)


def install() -> None:
    """Let every connection of this process use it."""
    place = f"{__name__}:{Transport.__qualname__}"
    TRANSPORT_ALIASES.update(redis=place, rediss=place)


def _unless_garbage(read: Any, *args: Any, **options: Any) -> Any:
    try:
        return read(*args, **options)
    except (ValueError, RecursionError) as error:  # of JSON
        log.warning("message.refused", error=type(error).__name__)
        raise Empty from error
