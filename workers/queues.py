"""Names of the queues, and wake-ups: messages that say no more than "there may be work".

Losing, repeating or delaying one costs latency, never an outcome. Knows no database and no torch.
"""

from __future__ import annotations

import queue
import re
import threading
from contextlib import suppress
from typing import Final, cast

from kombu import Exchange, Queue
from uuid_utils import uuid7

from penstock.telemetry import get_logger
from workers.app import make_app
from workers.broker import WAKE_UPS
from workers.messages import LANES, TASK

__all__ = ["LANES", "TASK", "WakeUps", "make_queue", "queue_name"]

log = get_logger(__name__)

#: Wake-ups that wait for a slow broker; more than this are dropped, the dispatcher resends.
MAX_PENDING: Final = 256
SOCKET_TIMEOUT: Final = 2.0  # seconds


def queue_name(model: str, lane: str) -> str:
    """`gpu.<model>.<lane>`, with what a key should not hold replaced by `-`."""
    return f"{WAKE_UPS}{re.sub(r'[^A-Za-z0-9._-]+', '-', model)}.{lane}"


def make_queue(model: str, lane: str) -> Queue:
    # The anonymous exchange routes by the queue's own name and has no binding that a FLUSHALL
    # could lose.
    name = queue_name(model, lane)
    return Queue(name, Exchange("", type="direct"), routing_key=name, durable=True)


class WakeUps:
    """Sends wake-ups from a thread of its own, so that a broker that hangs delays nobody."""

    def __init__(self, broker_url: str, key_prefix: str) -> None:
        self.broker_url, self.key_prefix = broker_url, key_prefix
        self._app = make_app(broker_url, key_prefix)
        # A hint is not worth a long wait, and the dispatcher's tick asks for the depth.
        self._app.conf.broker_transport_options["socket_timeout"] = SOCKET_TIMEOUT
        self._pending: queue.Queue[tuple[str, str] | None] = queue.Queue(MAX_PENDING)
        self._thread = threading.Thread(target=self._run, name="wake-ups", daemon=True)
        self._thread.start()

    def send(self, model: str, lane: str) -> None:
        """Ask for one claim. Never blocks, never raises."""
        with suppress(queue.Full):
            self._pending.put_nowait((model, lane))

    def depth(self, model: str, lane: str) -> int:
        """Wake-ups nobody took yet. Raises what the broker's client raises when it is away."""
        with self._app.connection_or_acquire() as connection:
            channel = connection.default_channel
            # The transport's own count: declaring passively fails for a queue never used.
            return cast(int, channel._size(queue_name(model, lane)))

    def ping(self) -> bool:
        """Is the broker there? At most a few seconds."""
        try:
            with self._app.connection_or_acquire() as connection:
                connection.ensure_connection(max_retries=1, timeout=2)
                return bool(connection.default_channel.client.ping())
        except Exception:  # whatever the broker's client raises means the same here
            return False

    def close(self) -> None:
        """Drop what waits and stop the thread."""
        with suppress(queue.Empty):
            while True:
                self._pending.get_nowait()
        self._pending.put(None)
        self._thread.join(timeout=5)

    def _run(self) -> None:
        while (item := self._pending.get()) is not None:
            model, lane = item
            try:
                self._app.send_task(
                    TASK,
                    kwargs={"lane": lane},
                    queue=make_queue(model, lane),
                    task_id=f"{lane}-{uuid7().hex[-12:]}",
                    retry=False,
                )
            except Exception as error:  # a hint only; whatever the broker's client raises
                log.warning("wake_up.dropped", lane=lane, error=type(error).__name__)
