"""What is remembered of a run beside its output, so that the same command picks the same job up."""

from __future__ import annotations

import os
from pathlib import Path

from pydantic import BaseModel, ValidationError

from penstock.annotation.files import writing
from penstock.errors import InvalidRequest

SUFFIX = ".penstock.json"


class JobRecord(BaseModel):
    """One run. Written before its job is posted, so that no interruption can lose the key."""

    idempotency_key: str
    input_checksum: str
    question: str
    model: str | None = None  #: that was asked
    request_id: str | None = None
    finished: bool = False


class StateFile:
    """`OUT.penstock.json`, readable by its owner alone."""

    def __init__(self, output: Path) -> None:
        self.path = output.with_name(output.name + SUFFIX)

    def load(self) -> JobRecord | None:
        """The last run, None where there was none. Raises InvalidRequest for a damaged file."""
        try:
            return JobRecord.model_validate_json(self.path.read_bytes())
        except FileNotFoundError:
            return None
        except (ValidationError, OSError):
            raise InvalidRequest(
                f"{self.path} cannot be read; --fresh starts anew without it."
            ) from None

    def save(self, record: JobRecord) -> None:
        """Replace the file at once. Durable when this returns."""
        fresh = self.path.with_name(f"{self.path.name}.{os.getpid()}.tmp")
        with writing(self.path):
            try:
                descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
                with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                    file.write(record.model_dump_json(indent=2) + "\n")
                    file.flush()
                    os.fsync(file.fileno())
                fresh.replace(self.path)
            finally:
                fresh.unlink(missing_ok=True)

    def forget(self) -> None:
        """Remove it: there is nothing to pick up."""
        self.path.unlink(missing_ok=True)
