"""What is remembered of a run beside its output, so that the same command goes on with it.

Knows what was posted, not what it says: no service, no table.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, Field, ValidationError

from penstock.annotation.files import unfinished, writing
from penstock.annotation.records import Receipt
from penstock.errors import InvalidRequest

SUFFIX = ".penstock.json"


class Part(BaseModel):
    """One job: a voter's prompts of the rows from `start` on, before `stop`, without the pilot's;
    or of the pilot's rows. Written before it is posted; `request_id` when it is stored."""

    key: str
    start: int = 0
    stop: int = 0
    rows: int
    pilot: bool = False
    request_id: str | None = None


class Line(BaseModel):
    """What one voter is asked, in the order of posting. `prior`: the prompts without content."""

    voter: str
    parts: list[Part] = Field(default_factory=list)
    prior: Part | None = None

    @property
    def next_row(self) -> int:
        """The first row that no part has, the pilot's aside."""
        return max((part.stop for part in self.parts if not part.pilot), default=0)

    @property
    def jobs(self) -> list[Part]:
        return [*([self.prior] if self.prior else []), *self.parts]


class Ledger(BaseModel):
    """One run. `task` is the whole task, its model named; `started` in seconds since 1970."""

    version: Literal[2] = 2
    source: str
    table: str | None = Field(default=None, description="The source's path, where it is a file.")
    checksum: str
    rows: int
    task: dict[str, object]
    question: str = Field(description="Of all that the voters are asked.")
    model: str | None
    nonce: str = ""  #: of `--fresh`: other keys than those of the run before
    pilot: list[int] | None = Field(default=None, description="The pilot's rows, ascending.")
    whole: bool = True  #: False: the pilot alone, until it is promoted
    lines: list[Line] = Field(default_factory=list)
    started: float | None = None
    ended: float | None = None
    history: list[tuple[float, int]] = Field(default_factory=list)
    counters: dict[str, object] | None = Field(
        default=None, description="What the service's workers had counted before."
    )
    stopped: str | None = Field(default=None, description="Why its jobs were cancelled.")
    receipt: Receipt | None = Field(default=None, description="Of a run that is finished.")

    @property
    def identity(self) -> tuple[str, str, str]:
        """Another one is another run."""
        return self.checksum, self.question, self.nonce

    @property
    def finished(self) -> bool:
        return self.receipt is not None

    def go_on(self) -> None:
        """After an end that was none: the time in between is not the run's."""
        if self.started is not None and self.ended is not None:
            self.started += time.time() - self.ended
        self.receipt = self.ended = self.stopped = None

    @property
    def pilot_rows(self) -> list[int]:
        return self.pilot or []

    @property
    def total(self) -> int:
        """Rows to annotate."""
        return self.rows if self.whole else len(self.pilot_rows)

    @property
    def jobs(self) -> list[Part]:
        return [part for line in self.lines for part in line.jobs]

    @property
    def request_ids(self) -> list[str]:
        return [part.request_id for part in self.jobs if part.request_id is not None]


class LedgerFile:
    """Readable by its owner alone."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._known: set[tuple[str, str, str]] = set()  # runs that this process may replace

    def load(self) -> Ledger | None:
        """The last run, None where there was none. Raises InvalidRequest for a damaged file."""
        try:
            found = Ledger.model_validate_json(self.path.read_bytes())
            self._known.add(found.identity)
            return found
        except FileNotFoundError:
            return None
        except (ValidationError, OSError):
            raise InvalidRequest(
                f"{self.path} cannot be read; move it away, and the same command finds its jobs by "
                "what they ask (--fresh would run them again).",
                param="output",
            ) from None

    def save(self, ledger: Ledger) -> None:
        """Replace the file at once. Durable when this returns. Raises InvalidRequest where another
        command began another run meanwhile."""
        self._refuse_another(ledger)
        fresh = unfinished(self.path)
        with writing(self.path):
            try:
                descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
                with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                    file.write(ledger.model_dump_json(indent=1) + "\n")
                    file.flush()
                    os.fsync(file.fileno())
                fresh.replace(self.path)
                _sync_folder(self.path.parent)
            finally:
                fresh.unlink(missing_ok=True)

    def _refuse_another(self, ledger: Ledger) -> None:
        self._known.add(ledger.identity)
        try:
            found = Ledger.model_validate_json(self.path.read_bytes())
        except (ValidationError, OSError):
            return  # nothing that could be gone on with
        if found.identity not in self._known:
            raise InvalidRequest(
                f"Another command began another run with {self.path} meanwhile; this one ends.",
                param="output",
            )

    def forget(self) -> None:
        """Remove it: there is nothing to pick up."""
        self.path.unlink(missing_ok=True)


def ledger_path(output: Path) -> Path:
    """Where the ledger of an output lies: `out.csv.penstock.json`."""
    return output.with_name(output.name + SUFFIX)


def _sync_folder(folder: Path) -> None:
    """A new name is durable only with its folder."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
