"""Jobs as the API would post them, and Penstock's own processes with short times."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

from penstock.ids import new_id
from storage import intake, reading
from storage.database import Database
from storage.records import Batch, NewBatch, NewPrompt, ResultRow
from storage.states import Lane

ROOT = Path(__file__).parents[2]
#: Short enough to see a lease run out, long enough for a loaded machine.
TIMING = {
    "PENSTOCK_WORKER__LEASE": "3",
    "PENSTOCK_WORKER__HEARTBEAT": "0.5",
    "PENSTOCK_WORKER__SELF_FENCE": "2",
    "PENSTOCK_WORKER__POLL": "0.5",
    "PENSTOCK_WORKER__GRACE": "1",
    "PENSTOCK_DISPATCHER__INTERVAL": "0.2",
    "PENSTOCK_DISPATCHER__REAP_INTERVAL": "0.5",
}


@dataclass
class Jobs:
    """Posts jobs and reads them, as the API would."""

    database: Database
    owner: str = "default"

    def post(
        self, prompts: int, lane: Lane = Lane.BULK, text: str = "prompt", model: str = "fake"
    ) -> str:
        batch = NewBatch(
            id=new_id("batch"),
            owner=self.owner,
            kind="batch",
            model=model,
            lane=lane,
            params={"max_tokens": 8, "temperature": 0.0},
        )
        rows = (NewPrompt((("user", f"{text} {n}"),)) for n in range(prompts))
        with self.database.begin() as conn:
            intake.create_batch(conn, batch, rows)
        return batch.id

    def get(self, batch_id: str) -> Batch:
        with self.database.begin() as conn:
            batch = reading.get_batch(conn, self.owner, batch_id)
        assert batch is not None
        return batch

    def done(self, batch_id: str) -> int:
        batch = self.get(batch_id)
        return batch.completed + batch.failed

    def finished(self, batch_id: str) -> bool:
        return self.get(batch_id).finished_at is not None

    def results(self, batch_id: str) -> list[ResultRow]:
        with self.database.begin() as conn:
            return reading.results(conn, batch_id, 0, 100_000)


@dataclass
class Processes:
    """Starts Penstock's own processes and ends them, whatever the test did to them."""

    environment: dict[str, str]
    logs: Path
    running: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def start(self, command: str, **overrides: str) -> subprocess.Popen[bytes]:
        log = (self.logs / f"{command}-{len(self.running)}.log").open("wb")
        process = subprocess.Popen(
            [sys.executable, "-m", "penstock", command],
            cwd=ROOT,
            env={**os.environ, **self.environment, **overrides},
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        log.close()
        self.running.append(process)
        return process

    def log_of(self, process: subprocess.Popen[bytes]) -> str:
        number = self.running.index(process)
        return next(self.logs.glob(f"*-{number}.log")).read_text()

    def end(self) -> None:
        for process in self.running:
            if process.poll() is None:
                process.send_signal(signal.SIGCONT)
                process.kill()
            process.wait(timeout=10)
