"""What the figures were measured on, by its hardware: no host name, no path."""

from __future__ import annotations

import ctypes.util
import os
import platform
from importlib.metadata import version
from pathlib import Path

import psutil

LIBRARIES = ("torch", "transformers", "tokenizers", "numpy")


def allocator() -> str | None:
    """The name of tcmalloc's library, for LD_PRELOAD, where there is one."""
    for name in ("tcmalloc_minimal", "tcmalloc"):
        found = ctypes.util.find_library(name)
        if found:
            return found
    return None


def cores() -> int:
    return len(os.sched_getaffinity(0))


def describe() -> dict[str, str]:
    """Names and figures of the hardware and of the libraries."""
    return {
        "processor": processor(),
        "cores": str(cores()),
        "vector units": ", ".join(_units()) or "not known",
        "memory": f"{psutil.virtual_memory().total / 2**30:.0f} GiB",
        "system": f"{platform.system()} {platform.machine()}, Python {platform.python_version()}",
        "libraries": ", ".join(f"{name} {version(name)}" for name in LIBRARIES),
        "allocator": allocator() or "the system's, for there is no tcmalloc",
    }


def processor() -> str:
    for line in _cpuinfo():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def _units() -> list[str]:
    flags = next((line for line in _cpuinfo() if line.startswith("flags")), "").split()
    known = ("avx2", "avx512f", "avx512_bf16", "amx_bf16")
    return [unit for unit in known if unit in flags]


def _cpuinfo() -> list[str]:
    try:
        return Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return []
