"""Conversations in files of JSON lines: written at once or not at all, private, the newest kept.

One line is one turn (`penstock/schemas/conversation.py`). Memory does not grow with their number.
"""

from __future__ import annotations

import datetime as dt
import json
import os
import threading
import time
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import BinaryIO, Final

from pydantic import ValidationError

from penstock.errors import InvalidRequest, Unavailable
from penstock.schemas.conversation import TurnLine
from penstock.service_settings import ConversationSettings
from penstock.telemetry import get_logger
from storage import transcripts
from storage.database import Database
from storage.text import all_storable
from storage.transcripts import SaidTurn

log = get_logger(__name__)

MAX_LINE: Final = 64_000_000  # bytes
#: Of one transaction of an import: turns, and about the most bytes of them.
PORTION: Final = 500
PORTION_BYTES: Final = 4_000_000
PREFIX: Final = "conversations-"
SUFFIX: Final = ".jsonl"
STAMP: Final = "%Y%m%dT%H%M%SZ"
RETRY: Final = 60.0  # seconds after an export that failed
JOIN: Final = 5.0


class Stopped(Exception):
    """Raised in an export that shall not go on."""


def lines(turns: Iterable[SaidTurn]) -> Iterator[bytes]:
    """Turns as lines of JSON."""
    for turn in turns:
        line = {
            name: value.isoformat() if isinstance(value, dt.datetime) else value
            for name, value in asdict(turn).items()
        }
        yield json.dumps(line, ensure_ascii=False).encode() + b"\n"


def write_file(path: Path, content: Iterable[bytes]) -> int:
    """Write a private file in one go: whoever looks finds all of it, or what was there before.
    Returns the number of lines."""
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    count = 0
    try:
        with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
            for count, line in enumerate(content, start=1):  # noqa: B007  # its last value
                file.write(line)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
    return count


def read_turns(source: BinaryIO) -> Iterator[list[SaidTurn]]:
    """The turns of an export, in portions. Raises `InvalidRequest`, which names line and field."""
    numbered = enumerate(iter(lambda: source.readline(MAX_LINE + 1), b""), start=1)
    portion: list[SaidTurn] = []
    size = 0
    for number, line in numbered:
        if not line.strip():
            continue
        portion.append(_read_turn(number, line))
        size += len(line)
        if len(portion) == PORTION or size >= PORTION_BYTES:
            yield portion
            portion, size = [], 0
    if portion:
        yield portion


def _read_turn(number: int, line: bytes) -> SaidTurn:
    if len(line) > MAX_LINE:
        raise InvalidRequest(f"Line {number} is longer than {MAX_LINE} bytes.")
    try:
        fields = TurnLine.model_validate_json(line)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        name = ".".join(map(str, first["loc"]))
        where = f"Line {number}, `{name}`" if name else f"Line {number}"
        raise InvalidRequest(f"{where}: {first['msg']}.", param=name or None) from None
    turn = SaidTurn(**dict(fields))
    if not all_storable([turn.owner, turn.conversation_id, turn.message, turn.answer or ""]):
        raise InvalidRequest(f"Line {number} holds NUL or half a surrogate pair.")
    return turn


class ScheduledExports:
    """Exports in a thread, so that the dispatcher's clock goes on. What is due is told by the files
    that are there: a restart neither forgets one nor repeats it."""

    def __init__(self, database: Database, folder: Path, interval: float, keep: int) -> None:
        self._database = database
        self._folder = folder
        self._interval = interval
        self._keep = keep
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None
        self._not_before = 0.0

    def tend(self) -> None:
        """Begin an export if it is due and none is under way. Never blocks for long."""
        if self._thread is not None and self._thread.is_alive():
            return
        if time.monotonic() < self._not_before or not self._due():
            return
        self._not_before = time.monotonic() + min(RETRY, self._interval)
        self._thread = threading.Thread(target=self._run, name="export", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End, and leave no half file."""
        self._stopping.set()
        self.join()

    def join(self) -> None:
        """Wait for the export that is under way, for a few seconds."""
        if self._thread is not None:
            self._thread.join(JOIN)

    def _due(self) -> bool:
        newest = max(self._files(), default=None)
        return newest is None or time.time() - _written_at(newest) >= self._interval

    def _files(self) -> list[Path]:
        """Exports that are whole; their names sort by time."""
        found = self._folder.glob(f"{PREFIX}*{SUFFIX}")
        return sorted(path for path in found if _written_at(path) > 0)

    def _run(self) -> None:
        try:
            self._export()
        except Stopped:
            log.info("export.stopped")
        except (OSError, Unavailable) as error:
            log.warning("export.failed", error=type(error).__name__)

    def _export(self) -> None:
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        for part in self._folder.glob(f".{PREFIX}*.part"):  # of a process that was killed
            part.unlink(missing_ok=True)
        now = dt.datetime.now(dt.UTC).strftime(STAMP)
        content = lines(self._until_stopped(transcripts.read_all(self._database)))
        count = write_file(self._folder / f"{PREFIX}{now}{SUFFIX}", content)
        log.info("conversations.exported", turns=count)
        for old in self._files()[: -self._keep]:
            old.unlink(missing_ok=True)

    def _until_stopped(self, turns: Iterator[SaidTurn]) -> Iterator[SaidTurn]:
        for turn in turns:
            if self._stopping.is_set():
                raise Stopped
            yield turn


def scheduled_exports(
    settings: ConversationSettings, database: Database
) -> ScheduledExports | None:
    """As the settings ask for; None: no folder, no exports."""
    if settings.export_dir is None:
        return None
    return ScheduledExports(
        database, settings.export_dir, settings.export_interval, settings.export_keep
    )


def _written_at(path: Path) -> float:
    """Seconds since 1970 by its name; 0 for a name that is none of ours."""
    stamp = path.name.removeprefix(PREFIX).removesuffix(SUFFIX)
    try:
        return dt.datetime.strptime(stamp, STAMP).replace(tzinfo=dt.UTC).timestamp()
    except ValueError:
        return 0.0
