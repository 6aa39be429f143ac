"""Turns batches' input files into jobs, after their posts were answered.

Looks at the state, so that any API process may take over what another left: a file is read in one
transaction, and a process that dies in it leaves nothing. Knows no HTTP.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, replace
from typing import Final

from sqlalchemy import Connection

from api import batch_output
from api.batch_lines import BadFile, LineError, Rules, Stopped, find_model, read_prompts
from api.config import ApiConfig
from api.metrics import Metrics
from api.offload import Offload
from penstock.errors import Conflict, Overloaded, PenstockError, Unavailable
from penstock.telemetry import get_logger
from storage import fleet, intake, openai_batches, quota
from storage.blobs import Blobs
from storage.openai_batches import OpenaiBatch
from storage.quota import Amount
from storage.records import Batch
from workers.queues import WakeUps

log = get_logger(__name__)

POLL: Final = 1.0  # seconds
MAX_BACKOFF: Final = 10.0
LEAVE: Final = 5.0  # seconds to put down what is being read


class BatchReader:
    """Reads one file after the other. `start`, `kick` and `close` belong to the event loop."""

    def __init__(
        self,
        *,
        config: ApiConfig,
        offload: Offload,
        blobs: Blobs,
        wake_ups: WakeUps,
        metrics: Metrics,
    ) -> None:
        self._config = config
        self._offload = offload
        self._blobs = blobs
        self._wake_ups = wake_ups
        self._metrics = metrics
        self._kicked = asyncio.Event()
        self._stopping = threading.Event()
        self._task: asyncio.Task[None]

    def start(self) -> None:
        self._task = asyncio.create_task(self._run())

    def kick(self) -> None:
        """There is a new batch: look at once."""
        self._kicked.set()

    async def close(self) -> None:
        """Leave what is being read to the next process."""
        self._stopping.set()
        self._kicked.set()
        await asyncio.wait({self._task}, timeout=LEAVE)
        self._task.cancel()  # it waits for a database that does not answer

    async def _run(self) -> None:
        pause = POLL
        while not self._stopping.is_set():
            try:
                while not self._stopping.is_set() and await self._do_next():
                    pass
                pause = POLL
            except Exception as error:  # this task must outlive whatever a driver raises
                log.warning("batch_reader.failed", error=type(error).__name__)
                pause = min(2 * pause, MAX_BACKOFF)
            with suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._kicked.wait()
            self._kicked.clear()

    async def _do_next(self) -> bool:
        """A file that waits to be read, or else one that waits to be counted. False: none does, or
        others are at it."""
        background = self._offload.background
        if not await background(openai_batches.any_waiting):
            return False
        return await self._read_next() or await background(self._count_next)

    async def _read_next(self) -> bool:
        reading: list[str] = []
        try:
            job = await self._offload.background(lambda conn: self._read(conn, reading))
        except Stopped:
            return False
        except Exception as error:
            if not reading or _is_outage(error):
                raise
            await self._reject(reading[0], error)
            return True
        if job is None:
            return False
        self._wake_ups.send(job.model, job.lane.value)
        self._metrics.count_accepted(job.model, job.total)
        log.info("batch.accepted", batch=job.id, kind=job.kind, total=job.total)
        return True

    def _read(self, conn: Connection, reading: list[str]) -> Batch | None:
        """The next file's lines as a job; its batch's id goes into `reading`."""
        batch = openai_batches.next_unread(conn)
        if batch is None:
            return None
        reading[:] = [batch.job.id]
        if not openai_batches.is_unread(batch):
            raise Conflict
        owner, lane = batch.job.owner, batch.job.lane
        limits = self._config.limits.get(lane)
        if limits is not None:
            quota.check(conn, limits, owner, lane, Amount(1, 0, 0))
        stored = self._store(conn, batch)
        if limits is not None:
            quota.settle(conn, limits, owner, lane)
        openai_batches.accept(conn, batch.job.id)
        return stored

    def _store(self, conn: Connection, batch: OpenaiBatch) -> Batch:
        rules = self._rules(conn, batch)
        with self._blobs.open(batch.input_file_id) as stream:
            model = find_model(stream, rules, self._stopping.is_set)
        with self._blobs.open(batch.input_file_id) as stream:
            prompts = read_prompts(stream, rules, model, self._stopping.is_set)
            return intake.fill(conn, replace(batch.job, model=model), prompts)

    def _rules(self, conn: Connection, batch: OpenaiBatch) -> Rules:
        config = self._config
        return Rules(
            endpoint=batch.endpoint,
            configured=config.model,
            served=config.models | {one.model for one in fleet.workers(conn)},
            quarantine=batch.quarantine,
            max_lines=config.max_prompts,
            max_prompt_bytes=config.max_prompt_bytes,
        )

    async def _reject(self, batch_id: str, error: Exception) -> None:
        """The batch fails for this reason, where it was not cancelled first."""
        if not isinstance(error, BadFile | PenstockError):
            log.error("batch.unreadable", batch=batch_id, error=type(error).__name__)
        shown = [asdict(one) for one in _reasons(error)]
        ended = await self._offload.store(
            lambda conn: openai_batches.reject(conn, batch_id, shown or None)
        )
        if ended:
            log.info("batch.rejected", batch=batch_id, errors=len(shown))

    def _count_next(self, conn: Connection) -> bool:
        found = openai_batches.next_uncounted(conn)
        if found is None:
            return False
        file_id, batch = found
        size = batch_output.count(conn, batch_output.file_of(batch, file_id))
        openai_batches.counted(conn, file_id, size)
        return True


def _is_outage(error: Exception) -> bool:
    """Something that another try may find mended; a full queue is the batch's own end."""
    return isinstance(error, Unavailable) and not isinstance(error, Overloaded)


def _reasons(error: Exception) -> Sequence[LineError]:
    if isinstance(error, BadFile):
        return error.errors
    if isinstance(error, Conflict):
        return ()
    if isinstance(error, PenstockError):
        return [LineError(error.code, error.message, error.param)]
    return [LineError("server_error", "The file could not be read.")]
