"""A model's name to a runner that is ready: found, checked, loaded, warmed up. Knows no settings.

Call `models.environment.prepare_environment` first, before transformers is imported.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from huggingface_hub.errors import (
    EntryNotFoundError,
    HFValidationError,
    LocalEntryNotFoundError,
)
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.utils import logging as transformers_logging
from transformers.utils.hub import cached_file

from models.device import choose_device
from models.padded import PaddedRunner
from models.quantization import (
    Quantization,
    compute_dtype,
    default_quantization,
    load_arguments,
    true_parameters,
)
from models.runner import ModelInfo, Row, SamplingParams, StepPlan
from models.safety import CONFIGS, refuse_code, refuse_unsafe_folder
from penstock.errors import ModelError, ModelNotFound, PenstockError
from penstock.telemetry import get_logger

log = get_logger(__name__)

DEFAULT_CONTEXT = 2048  #: of a model that does not say
LONGEST_CONTEXT = 10_000_000  #: a tokenizer without a limit says 10**30


@dataclass(frozen=True, slots=True)
class LoadOptions:
    """What to load and how. `None` lets the device decide. `dense`: int4 weights are unpacked once
    at load, which takes the memory of 16 bits and is faster for many rows."""

    name: str
    revision: str | None = None
    quantization: Quantization | None = None
    device: str | None = None
    threads: int | None = None
    hub_allowed: bool = False
    dense: bool = False


def load(options: LoadOptions) -> PaddedRunner:
    """Raises ModelNotFound, UnsafeModel or ModelError, each with one sentence that says why."""
    _quiet()
    if options.threads is not None:
        torch.set_num_threads(options.threads)
    device = choose_device(options.device)
    quantization = options.quantization or default_quantization(device)
    dense = options.dense and quantization == "int4"
    place = _check(options)
    try:
        model, tokenizer = _read(place, options, quantization, device)
        parameters = true_parameters(model)
        if dense:
            model = model.dequantize(dtype=compute_dtype(quantization, device))
    except torch.OutOfMemoryError as error:
        raise ModelError(f"{options.name} does not fit on {device} as {quantization}.") from error
    except Exception as error:  # whatever a damaged or unknown model makes the libraries raise
        log.warning("model.not_loaded", name=options.name, exc_info=True)
        raise ModelError(f"{options.name} cannot be loaded: {_first_line(error)}") from error
    info = ModelInfo(
        name=options.name,
        parameters=parameters,
        memory_bytes=model.get_memory_footprint(),
        device=str(device),
        quantization=quantization,
        context=context_length(model.config, tokenizer),
        runner="padded",
        notes=("int4 weights unpacked at load",) if dense else (),
    )
    runner = PaddedRunner(model, tokenizer, info)
    _warm_up(runner)
    return runner


def _read(
    place: str, options: LoadOptions, quantization: Quantization, device: torch.device
) -> tuple[Any, Any]:
    """The model and its tokenizer, from safetensors and without code of theirs."""
    common: dict[str, Any] = {
        "pretrained_model_name_or_path": place,
        "revision": options.revision,
        "local_files_only": not options.hub_allowed,
        "trust_remote_code": False,
    }
    tokenizer: Any = AutoTokenizer.from_pretrained(**common)
    model: Any = AutoModelForCausalLM.from_pretrained(
        use_safetensors=True, **common, **load_arguments(quantization, device)
    )
    return model.eval(), tokenizer


def context_length(config: Any, tokenizer: Any) -> int:
    """The least of what the model and its tokenizer say, where that makes sense."""
    text = config.get_text_config()
    says = (
        getattr(text, "max_position_embeddings", None),
        getattr(text, "n_positions", None),
        tokenizer.model_max_length,
    )
    known = [n for n in says if isinstance(n, int) and 1 < n < LONGEST_CONTEXT]
    return min(known, default=DEFAULT_CONTEXT)


def _check(options: LoadOptions) -> str:
    """Find the model and refuse what is unsafe. Returns what transformers is to load."""
    folder = Path(options.name).expanduser()
    if folder.is_dir():
        if not (folder / "config.json").is_file():
            raise ModelNotFound(f"{options.name} is not a model: it has no config.json.")
        refuse_unsafe_folder(folder)
        return str(folder)
    if folder.exists():
        raise ModelNotFound(f"{options.name} is a file; a model is a folder.")
    if not options.hub_allowed:
        raise ModelNotFound(f"There is no folder {options.name!r}.")
    for name in CONFIGS:
        config = _hub_file(options, name)
        if config is not None:
            refuse_code(config)
    return options.name


def _hub_file(options: LoadOptions, name: str) -> Path | None:
    """A small file of a hub model, downloaded or from the cache; None when it has none."""
    try:
        found = cached_file(
            options.name,
            name,
            revision=options.revision,
            _raise_exceptions_for_missing_entries=name == "config.json",
        )
    except (OSError, HFValidationError, EntryNotFoundError, LocalEntryNotFoundError) as error:
        raise ModelNotFound(
            f"There is no folder {options.name!r}, and the hub has no such model or is away."
        ) from error
    return None if found is None else Path(found)


def _warm_up(runner: PaddedRunner) -> None:
    """Two steps: int8 weights are packed at the first, and a model that cannot run says so now."""
    row = Row("warm-up", (0, 0), SamplingParams(max_tokens=2, temperature=0))
    try:
        runner.step(StepPlan(0, admit=(row,)))
        runner.forget(0)
    except PenstockError:
        raise
    except Exception as error:
        log.warning("model.not_warm", name=runner.info.name, exc_info=True)
        raise ModelError(f"{runner.info.name} cannot run: {_first_line(error)}") from error


def _quiet() -> None:
    """Python warnings stay what they are; what transformers logs is not for users."""
    logs: Any = transformers_logging
    logs.set_verbosity_error()
    logs.disable_progress_bar()
    # It repeats at every step of an int8 model that its input is cast.
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:300]
