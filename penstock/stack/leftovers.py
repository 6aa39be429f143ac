"""Children that outlived a supervisor which was killed: they end before new ones start.

Two servers on the same files would ruin them. A process is known by its id and its start time.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

from penstock.stack.child import Child
from penstock.stack.directory import write_private

_SAME_START = 1.0  # seconds that two readings of one start may differ


def remember(file: Path, children: Iterable[Child]) -> None:
    """Note which processes run now, and what tells each of them to end."""
    import psutil

    known: dict[str, tuple[int, float, int]] = {}
    for child in children:
        if (pid := child.pid) is not None:
            try:
                started = psutil.Process(pid).create_time()
            except psutil.NoSuchProcess:
                continue
            known[child.spec.name] = (pid, started, int(child.spec.orphaned))
    write_private(file, json.dumps(known))


def end(file: Path, limit: float = 20.0) -> list[str]:
    """End the noted processes that still run, by force after `limit` seconds. Returns their names.

    On Linux the kernel told them when their supervisor died; elsewhere nobody did yet.
    """
    import psutil

    try:
        known: dict[str, tuple[int, float, int]] = json.loads(file.read_text())
    except (FileNotFoundError, ValueError):
        return []
    found: dict[str, psutil.Process] = {}
    for name, (pid, started, signal) in known.items():
        try:
            process = psutil.Process(pid)
            if abs(process.create_time() - started) < _SAME_START:
                found[name] = process
                process.send_signal(signal)
        except psutil.NoSuchProcess:
            continue
    _, alive = psutil.wait_procs(found.values(), timeout=limit)
    for process in alive:
        process.kill()
    psutil.wait_procs(alive, timeout=5)
    file.unlink()
    return list(found)
