"""The compiled library in this process, loaded once. It shares torch's OpenMP threads: torch brings
the runtime, and the loader finds it by its name."""

from __future__ import annotations

import ctypes
from functools import lru_cache
from pathlib import Path

import torch

from models.native.build import BuildError, build
from penstock.telemetry import get_logger

log = get_logger(__name__)

DTYPES = (torch.float32, torch.bfloat16)  #: that it computes

_POINTER, _INT, _LONG, _FLOAT = ctypes.c_void_p, ctypes.c_int, ctypes.c_int64, ctypes.c_float
_FUNCTIONS = {
    "penstock_plan": (_POINTER, (_POINTER, _INT, _INT, _INT)),
    "penstock_free_plan": (None, (_POINTER,)),
    "penstock_attend": (_INT, (_POINTER, _POINTER)),
    "penstock_write": (_INT, (_POINTER, _POINTER, _LONG, _LONG, _LONG, _INT, _INT)),
    "penstock_place": (_INT, (_POINTER, _INT, _INT)),
    "penstock_layer": (_INT, (_POINTER, _POINTER, _INT, _INT)),
    "penstock_lay_out": (None, (_POINTER, _POINTER, _LONG, _LONG, _INT, _INT)),
    "penstock_linear": (None, (_POINTER, _INT, _INT)),
    "penstock_norm": (
        None,
        (_POINTER, _LONG, _POINTER, _POINTER, _LONG, _LONG, _FLOAT, _FLOAT, _INT, _INT),
    ),
    "penstock_greatest": (None, (_POINTER, _LONG, _POINTER, _LONG, _LONG, _INT, _INT)),
    "penstock_refine": (None, (_POINTER, _POINTER, _LONG, _INT, _INT)),
    "penstock_gate": (None, (_POINTER, _POINTER, _LONG, _LONG, _INT, _INT)),
    "penstock_rotary": (None, (_POINTER, _POINTER, _POINTER, _LONG, _LONG, _INT, _INT)),
}


@lru_cache(maxsize=1)
def library() -> ctypes.CDLL | None:
    """None where it cannot be built or loaded; the log says why."""
    before = openmp()
    try:
        loaded = declare(ctypes.CDLL(str(build())))
    except (BuildError, OSError, AttributeError) as error:
        log.info("native.not_loaded", reason=str(error))
        return None
    if openmp() - before:
        log.info("native.not_loaded", reason="it would run a second set of OpenMP threads")
        return None
    log.info("native.loaded", threads=torch.get_num_threads())
    return loaded


def how(library: ctypes.CDLL | None) -> str:
    """What was done to modules that were swapped, in words."""
    return "in fewer calls" if library is None else "compiled"


def declare(library: ctypes.CDLL) -> ctypes.CDLL:
    """Tell the types of its functions. Raises AttributeError when one is missing."""
    for name, (result, arguments) in _FUNCTIONS.items():
        function = getattr(library, name)
        function.restype, function.argtypes = result, arguments
    return library


def openmp() -> set[str]:
    """OpenMP runtimes in this process."""
    try:
        maps = Path("/proc/self/maps").read_text()
    except OSError:
        return set()
    files = {line.split(maxsplit=5)[-1] for line in maps.splitlines()}
    return {file for file in files if any(x in file for x in ("libgomp", "libomp", "libiomp"))}
