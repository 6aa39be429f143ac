"""Where a model goes: the GPU with most free memory, or the CPU. Loads nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

import torch

from models.host import available_memory, cpu_name
from penstock.errors import ModelError

T = TypeVar("T")

OUT_OF_MEMORY = ("not enough memory", "can't allocate memory", "CUBLAS_STATUS_ALLOC_FAILED")


class _Memory(NamedTuple):
    """Bytes of a GPU."""

    free: int
    used: int


def choose_device(name: str | None) -> torch.device:
    """The named device, or the best there is. Raises ModelError when it is not there."""
    if name is None:
        return best_device()
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ModelError(f"There is no kind of device called {name!r}.", param="device") from error
    if device.type == "cpu":
        return device
    if device.type != "cuda" or not torch.cuda.is_available():
        raise ModelError(f"The device {name!r} is not available here.", param="device")
    index = device.index or 0
    if index >= torch.cuda.device_count():
        count = torch.cuda.device_count()
        raise ModelError(f"There is no device {name!r}; GPUs here: {count}.", param="device")
    return torch.device("cuda", index)


def best_device() -> torch.device:
    if not torch.cuda.is_available():
        return torch.device("cpu")
    indices = range(torch.cuda.device_count())
    return torch.device("cuda", max(indices, key=_free_memory_of))


def free_memory(device: torch.device) -> int:
    """Free bytes of a device. A GPU's own answer, for what torch keeps unused is free to us."""
    if device.type == "cpu":
        return available_memory()
    torch.cuda.empty_cache()
    return torch.cuda.mem_get_info(device)[0]


def device_name(device: torch.device) -> str:
    """As its maker calls it."""
    return cpu_name() if device.type == "cpu" else torch.cuda.get_device_name(device)


def peak_memory(name: str) -> int:
    """The most bytes of a GPU that this process has had."""
    return torch.cuda.max_memory_reserved(torch.device(name))


def used_energy(name: str) -> float | None:
    """Joules that a GPU took since its driver was loaded, as NVML tells; None: it does not."""

    def ask(nvml: Any, gpu: Any) -> float:
        return float(nvml.nvmlDeviceGetTotalEnergyConsumption(gpu)) / 1_000

    return _ask_nvml(torch.device(name).index or 0, ask)


def used_memory(name: str) -> int | None:
    """Bytes of a GPU that are in use, by whomever, as NVML tells; None: it does not."""
    memory = _nvml_memory(torch.device(name).index or 0)
    return None if memory is None else memory.used


def _free_memory_of(index: int) -> int:
    """Free bytes of a GPU that may not be used yet. NVML where it answers: torch's own question
    takes memory itself, on each GPU that it is asked about."""
    memory = _nvml_memory(index)
    return torch.cuda.mem_get_info(index)[0] if memory is None else memory.free


def _nvml_memory(index: int) -> _Memory | None:
    def ask(nvml: Any, gpu: Any) -> _Memory:
        found = nvml.nvmlDeviceGetMemoryInfo(gpu)
        return _Memory(int(found.free), int(found.used))

    return _ask_nvml(index, ask)


def _ask_nvml(index: int, ask: Callable[[Any, Any], T]) -> T | None:
    """What NVML says of a GPU; None where it is not here, or does not know."""
    try:
        import pynvml
    except ImportError:
        return None
    uuid = f"GPU-{torch.cuda.get_device_properties(index).uuid}"
    try:
        pynvml.nvmlInit()
        try:
            return ask(pynvml, pynvml.nvmlDeviceGetHandleByUUID(uuid))
        finally:
            pynvml.nvmlShutdown()
    except pynvml.NVMLError:
        return None


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error means that the device had no memory left."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return any(sign in str(error) for sign in OUT_OF_MEMORY)
