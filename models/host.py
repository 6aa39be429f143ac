"""What this machine offers a model on the CPU: free memory, and types that are fast. Torch-free;
reads what Linux tells in /proc and /sys, and guesses elsewhere."""

from __future__ import annotations

import os
import platform
import resource
import sys
from functools import cache
from pathlib import Path

#: Instructions that make a type fast, as the kernel names them on x86 and Arm.
FAST = {
    "bf16": {"avx512_bf16", "amx_bf16", "bf16"},
    "fp16": {"avx512_fp16", "amx_fp16", "asimdhp"},
    "int8": {"avx512_vnni", "avx_vnni", "amx_int8"},
}
#: Limit, use, and cached files in `memory.stat` that go when memory gets short: cgroup v2 and v1.
CGROUPS = (
    ("", "memory.max", "memory.current", "inactive_file"),
    ("memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
)


@cache
def cpu_is_fast(name: str) -> bool:
    """Whether this CPU multiplies matrices of `bf16` or `fp16` faster than of fp32, and of `int8`
    faster than of bf16, without losing anything of their sums."""
    return not FAST[name].isdisjoint(_cpu_says("flags", "Features").split())


def cpu_name() -> str:
    """As its maker calls it."""
    return _cpu_says("model name", "Hardware") or platform.processor() or platform.machine()


def peak_memory() -> int:
    """The most bytes of memory that this process has had."""
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most * 1024


def _cpu_says(*keys: str) -> str:
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
    lines = (line.partition(":") for line in text.splitlines())
    return next((value.strip() for key, _, value in lines if key.strip() in keys), "")


def available_memory(root: Path = Path("/")) -> int:
    """Bytes that this process may still take: of the machine, or of its cgroup if that is less."""
    return min([_machine(root), *_cgroups(root)])


def _machine(root: Path) -> int:
    try:
        for line in (root / "proc/meminfo").read_text(encoding="ascii").splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2


def _cgroups(root: Path) -> list[int]:
    """What is left in each cgroup that holds this process, as far as they have limits."""
    try:
        own = (root / "proc/self/cgroup").read_text(encoding="utf-8").splitlines()
    except OSError:
        return []
    found = []
    for line in own:
        _, controllers, path = line.split(":", 2)
        for controller, limit, use, cached in CGROUPS:
            if controller not in controllers.split(","):
                continue
            base = root / "sys/fs/cgroup" / controller
            folder = base / path.lstrip("/")
            # In a container the path may be one of the host, which is not to be seen.
            for place in {base, *(p for p in (folder, *folder.parents) if p.is_relative_to(base))}:
                found.append(_left(place, limit, use, cached))
    return [left for left in found if left is not None]


def _left(place: Path, limit: str, use: str, cached: str) -> int | None:
    try:
        most, used = (place / limit).read_text().strip(), int((place / use).read_text())
        lines = (place / "memory.stat").read_text().splitlines()
    except (OSError, ValueError):
        return None
    if not most.isdigit():  # "max"
        return None
    stat = dict(line.split() for line in lines)
    return max(0, int(most) - used + int(stat.get(cached, 0)))
