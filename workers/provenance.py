"""What a worker's answers are made with, for whoever wants to make them again: versions of the
libraries, and hashes of the weights, which are taken aside so that nothing waits for them.
"""

from __future__ import annotations

import contextlib
import os
import platform
import sys
import threading
from collections.abc import Callable, Mapping
from importlib.metadata import PackageNotFoundError, version
from typing import Final

from models.weights import folder_of, hashes
from penstock import __version__
from penstock.errors import Unavailable
from penstock.telemetry import get_logger
from storage import fleet
from storage.database import Database
from workers.background import Background

log = get_logger(__name__)

#: Those that a number of an answer may depend on.
LIBRARIES: Final = (
    "torch",
    "transformers",
    "tokenizers",
    "safetensors",
    "bitsandbytes",
    "llguidance",
    "triton",
)
RETRY: Final = 5.0  # seconds
POLITE: Final = 19

#: Hashes by file; None: there are none to take, or it was told to stop.
TakeHashes = Callable[[Callable[[], bool]], Mapping[str, str] | None]


def versions() -> dict[str, str]:
    """Of what is installed here."""
    found = {"python": platform.python_version(), "penstock": __version__}
    for name in LIBRARIES:
        with contextlib.suppress(PackageNotFoundError):
            found[name] = version(name)
    return found


def hashes_of(name: str, revision: str) -> TakeHashes:
    """Of the model that was loaded under a name."""

    def take(stopping: Callable[[], bool]) -> Mapping[str, str] | None:
        folder = folder_of(name, revision)
        return None if folder is None else hashes(folder, stopping)

    return take


class Provenance(Background):
    """A thread of its own that ends when the hashes are stored with the worker's slot."""

    def __init__(self, database: Database, slot: str, boot_id: str, take: TakeHashes) -> None:
        super().__init__("provenance")
        self._database = database
        self._slot, self._boot_id = slot, boot_id
        self._take = take

    def _run(self) -> None:
        _be_polite()
        try:
            found = self._take(self._stopping.is_set)
        except OSError as error:
            log.warning("weights.not_hashed", error=type(error).__name__)
            return
        while found and not self._stopping.is_set():
            try:
                with self._database.begin() as conn:
                    fleet.describe(conn, self._slot, self._boot_id, {"weights": dict(found)})
                return
            except Unavailable:
                self._stopping.wait(RETRY)


def _be_polite() -> None:
    """Linux has a priority for each thread: gigabytes are hashed on time that nobody wants."""
    if sys.platform == "linux":
        with contextlib.suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), POLITE)
