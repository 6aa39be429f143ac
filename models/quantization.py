"""How weights are stored and what they are computed in: the five names users know, as arguments of
transformers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, cast

import torch
from transformers import BitsAndBytesConfig

from models.host import cpu_is_fast

Quantization = Literal["int4", "int8", "fp16", "bf16", "fp32"]

DTYPES: Mapping[str, torch.dtype] = {
    "fp16": torch.float16,
    "bf16": torch.bfloat16,
    "fp32": torch.float32,
}


def default_quantization(device: torch.device) -> Quantization:
    """bf16 on a GPU that has it; fp32 on the CPU, where tokens are exact."""
    if device.type == "cpu":
        return "fp32"
    return "bf16" if torch.cuda.is_bf16_supported() else "fp16"


def compute_dtype(quantization: Quantization, device: torch.device) -> torch.dtype:
    """The type of activations, and of weights that are not packed: the one that was asked for, or
    a faster one where the CPU is slow with it."""
    if device.type == "cpu":
        return DTYPES[_on_cpu(quantization)]
    return DTYPES[quantization if quantization in DTYPES else default_quantization(device)]


def _on_cpu(quantization: Quantization) -> str:
    if quantization in ("fp32", "int8"):
        # With int8 the weights are fast in any case, and in fp32 tokens stay exact.
        return "fp32"
    if quantization == "fp16" and cpu_is_fast("fp16"):
        return "fp16"
    return "bf16" if cpu_is_fast("bf16") else "fp32"


def pays_dense(model: Any, dtype: torch.dtype, device: torch.device, free: int) -> bool:
    """Whether int4 weights are better unpacked once than at every step: where a matrix product of
    16 bits is faster, and at least half of the free memory stays for keys and values."""
    growth = true_parameters(model) * dtype.itemsize - int(model.get_memory_footprint())
    return (device.type != "cpu" or dtype != torch.float32) and growth <= free // 2


def load_arguments(quantization: Quantization, device: torch.device) -> dict[str, Any]:
    """Keyword arguments of `from_pretrained`."""
    dtype = compute_dtype(quantization, device)
    arguments: dict[str, Any] = {"dtype": dtype, "device_map": {"": device}}
    if quantization == "int4":
        arguments["quantization_config"] = BitsAndBytesConfig(  # type: ignore[no-untyped-call]
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=dtype,
        )
    elif quantization == "int8":
        # A threshold picks outlier columns over the whole batch: neighbors would change a row.
        arguments["quantization_config"] = BitsAndBytesConfig(  # type: ignore[no-untyped-call]
            load_in_8bit=True, llm_int8_threshold=0.0
        )
    return arguments


def true_parameters(model: torch.nn.Module) -> int:
    """Parameters as trained: packed 4-bit weights hold two or more in one number."""
    return sum(_true_count(parameter) for parameter in model.parameters())


def _true_count(parameter: torch.nn.Parameter) -> int:
    state = getattr(parameter, "quant_state", None)
    shape = getattr(state, "shape", None)
    return cast(torch.Size, shape).numel() if shape is not None else parameter.numel()
