"""A worker serves the model that was ordered for its slot, or its configured one.

An order is carried out by a new process: this one drains and ends with a status of its own, and
whoever started it starts it again. An order that cannot be carried out is given up, with a reason.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Final, TypeVar

from sqlalchemy import Connection

from models.runner import Runner
from penstock.errors import PenstockError, Unavailable
from penstock.settings import Settings
from penstock.telemetry import get_logger
from storage import orders
from storage.database import Database
from workers.background import Background
from workers.loading import load_runner

log = get_logger(__name__)
T = TypeVar("T")

#: Exit status: start me again, another model was ordered.
EXIT_FOR_ORDER: Final = 83
CHECK: Final = 1.0  # seconds
MAX_TRIES: Final = 3  # boots that may die while they load it
MAX_BACKOFF: Final = 10.0  # seconds


def load(settings: Settings, database: Database) -> tuple[Settings, Runner]:
    """The runner to serve with, and the settings that name its model. Ends the process where an
    ordered model cannot be loaded: the next one has the memory for itself."""
    slot, model = settings.worker.slot, settings.model
    found = _reach(database, lambda conn: orders.attempt(conn, slot)) if model.choices else None
    if found is None or found.model == model.public_name:
        return settings, load_runner(model)
    reason = None
    if found.model not in model.models:
        reason = "it is not configured"
    elif found.number > MAX_TRIES:
        reason = f"{MAX_TRIES} processes died while they loaded it"
    else:
        try:
            runner = load_runner(model.of(found.model))
        except Exception as error:  # whatever a loader raises
            reason = error.message if isinstance(error, PenstockError) else type(error).__name__
    if reason is not None:
        log.error("order.given_up", model=found.model, reason=reason)
        _reach(database, lambda conn: orders.give_up(conn, slot, found.model, reason))
        raise SystemExit(EXIT_FOR_ORDER)
    _reach(database, lambda conn: orders.loaded(conn, slot))
    return settings.model_copy(update={"model": model.of(found.model)}), runner


def _reach(database: Database, work: Callable[[Connection], T]) -> T:
    """Waits for the database."""
    backoff = 0.5
    while True:
        try:
            return database.transact(work)
        except Unavailable as error:
            log.warning("worker.waiting", reason=error.message)
            time.sleep(backoff)
            backoff = min(backoff * 2, MAX_BACKOFF)


class OrderWatch(Background):
    """Looks once a second whether another model is ordered, and says so once."""

    def __init__(
        self, database: Database, slot: str, model: str, on_order: Callable[[], object]
    ) -> None:
        super().__init__("orders")
        self._database = database
        self._slot = slot
        self._model = model
        self._on_order = on_order
        self.seen = threading.Event()

    def _run(self) -> None:
        while not self._stopping.wait(CHECK):
            try:
                with self._database.begin() as conn:
                    wanted = orders.wanted(conn, self._slot)
            except Unavailable:
                continue
            if wanted is not None and wanted != self._model:
                log.info("order.seen", model=wanted, slot=self._slot)
                self.seen.set()
                self._on_order()
                return
