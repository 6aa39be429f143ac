"""Where a model goes: the GPU with most free memory, or the CPU. Loads nothing."""

from __future__ import annotations

import torch

from models.host import available_memory
from penstock.errors import ModelError

OUT_OF_MEMORY = ("not enough memory", "can't allocate memory", "CUBLAS_STATUS_ALLOC_FAILED")


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


def _free_memory_of(index: int) -> int:
    """Free bytes of a GPU that may not be used yet. NVML where it answers: torch's own question
    takes memory itself, on each GPU that it is asked about."""
    uuid = f"GPU-{torch.cuda.get_device_properties(index).uuid}"
    free = _nvml_free_memory(uuid)
    return torch.cuda.mem_get_info(index)[0] if free is None else free


def _nvml_free_memory(uuid: str) -> int | None:
    try:
        import pynvml
    except ImportError:
        return None
    try:
        pynvml.nvmlInit()
        try:
            handle = pynvml.nvmlDeviceGetHandleByUUID(uuid)
            return int(pynvml.nvmlDeviceGetMemoryInfo(handle).free)
        finally:
            pynvml.nvmlShutdown()
    except pynvml.NVMLError:
        return None


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error means that the device had no memory left."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return any(sign in str(error) for sign in OUT_OF_MEMORY)
