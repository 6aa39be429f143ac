"""Sends webhooks: claims what is due, signs it, posts it, and writes down what came of it.

Runs beside the dispatcher's clock, on threads and connections of its own. Several processes may
send: the database leases each delivery to one of them, and at most two to a receiver at once.
"""

from __future__ import annotations

import datetime as dt
import json
import random
import threading
import time
from typing import Final

from standardwebhooks import Webhook

from penstock.errors import PenstockError, Unavailable
from penstock.telemetry import get_logger
from storage import deliveries
from storage.database import Database
from storage.deliveries import Attempt, Claimed
from storage.states import DeliveryState
from workers.background import JOIN_TIMEOUT, Background
from workers.egress import Answer, Egress

log = get_logger(__name__)

#: Seconds. An attempt has to be over, and settled, well before its lease.
LEASE: Final = 60.0
POLL: Final = 1.0
CLEAN_INTERVAL: Final = 60.0
MAX_PAUSE: Final = 10.0  # while the database is away
GRACE: Final = 3.0  # for the attempts that run at the end
#: Between two attempts: five seconds at first, four times as long each time, six hours at most.
FIRST_DELAY: Final = 5.0
GROWTH: Final = 4.0
MAX_DELAY: Final = 6 * 3_600.0
JITTER: Final = 0.2  # of a delay, more or less
GONE: Final = 410
ASKS_TO_WAIT: Final = frozenset({429, 503})


class Sender(Background):
    """One thread claims; each attempt has a thread of its own, `concurrency` of them at most."""

    def __init__(
        self, database: Database, egress: Egress, *, concurrency: int, retention: float
    ) -> None:
        super().__init__("webhooks")
        self._database = database
        self._egress = egress
        self._retention = retention
        self._most = self._room = concurrency
        self._share = max(deliveries.MOST_IN_FLIGHT, concurrency // 2)
        self._changed = threading.Condition()  #: guards `_room`
        #: Set by every attempt that ends: its receiver may have more.
        self._ended = threading.Event()
        self._after = ""
        self._cleaned: float | None = None

    def stop(self, timeout: float = JOIN_TIMEOUT) -> bool:
        """End, and give the attempts that run a moment. What is not settled then is another's when
        its lease has run out."""
        self._stopping.set()
        self._ended.set()
        ended = super().stop(timeout)
        with self._changed:
            self._changed.wait_for(lambda: self._room == self._most, GRACE)
        return ended

    def _run(self) -> None:
        pause = POLL
        while not self._stopping.is_set():
            self._ended.clear()
            try:
                more = self._round()
                pause = POLL
            except Unavailable as error:
                log.warning("webhooks.delayed", reason=error.message)
                more, pause = False, min(2 * pause, MAX_PAUSE)
            except Exception as error:  # this thread must outlive whatever one delivery brings
                log.error("webhooks.failed", error=type(error).__name__)
                more, pause = False, MAX_PAUSE
            if not more:
                self._ended.wait(pause)

    def _round(self) -> bool:
        """Claim and start what there is room for. True: there may be more to claim at once."""
        self._clean()
        with self._changed:
            room = self._room
        if not room:
            return False
        claimed_at = time.monotonic()
        with self._database.begin() as conn:
            if not deliveries.any_open(conn):
                self._after = ""
                return False
            freed = deliveries.free_lost(conn)
            claimed, self._after = deliveries.claim(
                conn, after=self._after, limit=room, share=self._share, lease=LEASE
            )
        if freed:
            log.warning("deliveries.freed", deliveries=freed)
        for delivery in claimed:
            self._start(delivery, claimed_at)
        return bool(self._after)

    def _clean(self) -> None:
        """Now and then, delete what is old, a portion a round."""
        now = time.monotonic()
        if self._cleaned is None or now - self._cleaned >= CLEAN_INTERVAL:
            with self._database.begin() as conn:
                deleted = deliveries.delete_old(conn, self._retention)
            self._cleaned = None if deleted else now
            if deleted:
                log.info("deliveries.deleted", deliveries=deleted)

    def _start(self, delivery: Claimed, claimed_at: float) -> None:
        with self._changed:
            self._room -= 1
        threading.Thread(
            target=self._work, args=(delivery, claimed_at), name="webhook", daemon=True
        ).start()

    def _work(self, delivery: Claimed, claimed_at: float) -> None:
        try:
            self._settle(delivery, self._attempt(delivery, claimed_at), claimed_at)
        except Unavailable as error:  # its lease runs out, and it is sent again
            log.warning("webhook.unsettled", delivery=delivery.id, reason=error.message)
        finally:
            with self._changed:
                self._room += 1
                self._changed.notify_all()
            self._ended.set()

    def _attempt(self, delivery: Claimed, claimed_at: float) -> Attempt:
        delay = delay_after(delivery.attempts)
        if time.monotonic() - claimed_at > LEASE / 2:  # this process stood still meanwhile
            return Attempt(delivered=False, error="It was not sent in time.")
        try:
            headers, body = sign(delivery)
            answer = self._egress.post(delivery.url, headers, body)
        except PenstockError as error:
            return Attempt(delivered=False, error=error.message, delay=delay)
        except Exception as error:  # one delivery's fault must not make it come back for ever
            log.error("webhook.failed", delivery=delivery.id, error=type(error).__name__)
            return Attempt(delivered=False, error="It could not be sent.", delay=delay)
        return judge(answer, delay)

    def _settle(self, delivery: Claimed, attempt: Attempt, claimed_at: float) -> None:
        """Again and again while the database is away, for as long as the lease may stand."""
        pause = 0.1
        while True:
            try:
                state = self._database.transact(
                    lambda conn: deliveries.settle(conn, delivery, attempt)
                )
                break
            except Unavailable:
                if time.monotonic() - claimed_at > LEASE or self._stopping.wait(pause):
                    raise
                pause = min(2 * pause, MAX_PAUSE)
        _tell(delivery, attempt, state)
        if attempt.status == GONE and state is not None:
            self._disable(delivery)

    def _disable(self, delivery: Claimed) -> None:
        with self._database.begin() as conn:
            if deliveries.disable(conn, delivery.endpoint_id):
                log.warning("endpoint.disabled", endpoint=delivery.endpoint_id, reason="gone")


def sign(delivery: Claimed) -> tuple[dict[str, str], bytes]:
    """Headers and body: signed now, so that no receiver finds the signature too old."""
    body = json.dumps(delivery.payload, ensure_ascii=True, separators=(",", ":"))
    event_id, now = str(delivery.payload["id"]), dt.datetime.now(dt.UTC)
    signatures = (Webhook(secret).sign(event_id, now, body) for secret in delivery.secrets)
    headers = {
        "Content-Type": "application/json",
        "User-Agent": "Penstock-Webhooks",
        "webhook-id": event_id,
        "webhook-timestamp": str(int(now.timestamp())),
        "webhook-signature": " ".join(signatures),
    }
    return headers, body.encode("ascii")


def judge(answer: Answer, delay: float) -> Attempt:
    """What an answer means. Who asks to be left alone is, for six hours at most."""
    status = answer.status
    if 200 <= status < 300:
        return Attempt(delivered=True, status=status)
    if status == GONE:
        return Attempt(False, status, "The receiver is gone.", final=True)
    pause = 0.0
    if status in ASKS_TO_WAIT and answer.retry_after is not None:
        pause = min(answer.retry_after, MAX_DELAY)
    error = f"The receiver answered {status}."
    if 300 <= status < 400:
        error = f"The receiver answered {status}; redirects are not followed."
    return Attempt(False, status, error, delay=max(delay, pause), pause=pause)


def delay_after(attempts: int) -> float:
    """Seconds until the next attempt, with jitter."""
    delay = FIRST_DELAY
    for _ in range(attempts - 1):
        delay = min(delay * GROWTH, MAX_DELAY)
    return delay * random.uniform(1 - JITTER, 1 + JITTER)  # noqa: S311  # no secret


def _tell(delivery: Claimed, attempt: Attempt, state: DeliveryState | None) -> None:
    """Ids and the outcome; never a URL, which may hold a secret."""
    log.info(
        "webhook.delivered" if attempt.delivered else "webhook.refused",
        delivery=delivery.id,
        batch=delivery.batch_id,
        endpoint=delivery.endpoint_id,
        attempt=delivery.attempts,
        status=attempt.status,
        reason=attempt.error,
        state="lost" if state is None else state.value,
    )
