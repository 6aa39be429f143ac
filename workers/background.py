"""A thread that runs beside the work and ends when it is told."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from typing import Final

JOIN_TIMEOUT: Final = 5.0  # seconds


class Background(ABC):
    """Subclasses run until `self._stopping` is set, and wait on it rather than sleep."""

    def __init__(self, name: str) -> None:
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    @abstractmethod
    def _run(self) -> None: ...

    def start(self) -> None:
        self._thread.start()

    def stop(self, timeout: float = JOIN_TIMEOUT) -> bool:
        """End and wait; False when it did not end in time. Also before `start`."""
        self._stopping.set()
        if self._thread.ident is not None:
            self._thread.join(timeout)
        return not self._thread.is_alive()

    def alive(self) -> bool:
        return self._thread.is_alive()
