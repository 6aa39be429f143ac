"""Memory and processor time of a stack's processes, children included. Linux: reads /proc.

Memory is PSS: a page that processes share counts once, in parts. Knows nothing of what they do.
"""

from __future__ import annotations

import contextlib
import threading
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import psutil

INTERVAL = 0.5  #: seconds between two looks at the memory

Pids = Callable[[], Mapping[str, int]]


def _tree(pid: int) -> list[psutil.Process]:
    with contextlib.suppress(psutil.NoSuchProcess):
        parent = psutil.Process(pid)
        return [parent, *parent.children(recursive=True)]
    return []


def pss_mb(pid: int) -> float:
    """Of a process and its children, in MB."""
    total = 0
    for process in _tree(pid):
        with contextlib.suppress(OSError):
            rollup = Path(f"/proc/{process.pid}/smaps_rollup").read_text()
            total += sum(int(line.split()[1]) for line in rollup.splitlines() if "Pss:" in line[:4])
    return total * 1024 / 1e6


def cpu_s(pid: int) -> float:
    """Processor seconds of a process and its children, those that ended included."""
    total = 0.0
    for place, process in enumerate(_tree(pid)):
        with contextlib.suppress(psutil.NoSuchProcess):
            times = process.cpu_times()
            total += times.user + times.system
            if place == 0:
                total += times.children_user + times.children_system
    return total


def cpu_by_name(pids: Mapping[str, int]) -> dict[str, float]:
    return {name: cpu_s(pid) for name, pid in pids.items()}


def cpu_by_thread(pid: int) -> dict[int, float]:
    """Processor seconds of each living thread of a process."""
    found = psutil.Process(pid).threads()
    return {thread.id: thread.user_time + thread.system_time for thread in found}


@contextlib.contextmanager
def watching(pids: Pids) -> Iterator[dict[str, float]]:
    """The most memory of each process within the block, in MB."""
    peaks: dict[str, float] = defaultdict(float)
    stopping = threading.Event()

    def look() -> None:
        while True:
            for name, pid in pids().items():
                peaks[name] = max(peaks[name], pss_mb(pid))
            if stopping.wait(INTERVAL):
                return

    thread = threading.Thread(target=look, name="usage", daemon=True)
    thread.start()
    try:
        yield peaks
    finally:
        stopping.set()
        thread.join()
