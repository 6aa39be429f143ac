"""Who takes part, and with which settings: ours in its forms, and each rival at its best."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.environments import LLAMA, VLLM
from benchmarks.worker import Contender

#: How each is called in tables and pictures.
TITLES: Mapping[str, str] = {
    "naive": "naive: arrival order, batch 8",
    "sorted": "generate, sorted by length",
    "continuous": "transformers' continuous batching",
    "llama": "llama.cpp, 32 sequences",
    "vllm-32": "vLLM CPU, 32",
    "vllm-64": "vLLM CPU, 64",
    "vllm-64-cached": "vLLM CPU, 64, prefix caching",
    "padded": "Penstock padded, 64 rows",
    "torch": "Penstock packed, plain torch, 128",
    "packed": "Penstock packed, 128 rows",
}
CONTEXT = 768  #: the longest prompt and answer of a workload


def everyone(
    names: tuple[str, ...], model: Path, dtype: str, threads: int, tcmalloc: str | None, bench: Path
) -> list[Contender]:
    """Those of `names`; which ones can be installed is not known here."""
    common = {"model": str(model), "dtype": dtype, "threads": threads}
    environment = {"OMP_NUM_THREADS": str(threads), "HF_HUB_OFFLINE": "1"}
    if tcmalloc:
        environment["LD_PRELOAD"] = tcmalloc
    made = []
    for name in names:
        module, python, options, extra = _one(name, bench)
        made.append(
            Contender(name, module, python, {**common, **options}, {**environment, **extra})
        )
    return made


def _one(name: str, bench: Path) -> tuple[str, Path, dict[str, Any], dict[str, str]]:
    """Module, interpreter, options, and what is special in its process environment."""
    here = Path(".venv/bin/python")
    if name == "hf":
        return "benchmarks.rivals.hf", here, {}, {}
    if name == "llama":
        settings = {"batch": 32, "context": CONTEXT}
        return "benchmarks.rivals.llama_cpp", LLAMA.python(bench), settings, {}
    if name.startswith("vllm"):
        return _vllm(name, bench)
    native = "0" if name == "torch" else "1"
    runner = "padded" if name == "padded" else "packed"
    return "benchmarks.ours", here, {"runner": runner}, {"PENSTOCK_NATIVE": native}


def _vllm(name: str, bench: Path) -> tuple[str, Path, dict[str, Any], dict[str, str]]:
    options = {
        "batch": int(name.split("-")[1]),
        "context": CONTEXT + 256,
        "prefix_caching": name.endswith("cached"),
    }
    environment = {
        "VLLM_CPU_KVCACHE_SPACE": "2",
        # By default it leaves a core to its scheduler, which on two cores is half of them.
        "VLLM_CPU_OMP_THREADS_BIND": ",".join(map(str, sorted(os.sched_getaffinity(0)))),
        # Compiled, and its scheduler in the caller's process: the best of five ways tried.
        "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
        # What it compiles ahead of time fails to load and is compiled anew; the older cache works.
        "VLLM_USE_AOT_COMPILE": "0",
        "VLLM_CACHE_ROOT": str(bench.resolve() / "vllm-cache"),
        "VLLM_LOGGING_LEVEL": "WARNING",
    }
    return "benchmarks.rivals.vllm_cpu", VLLM.python(bench), options, environment
