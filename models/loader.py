"""A model's name to a runner that is ready: found, checked, loaded, warmed up. Knows no settings.

Call `models.environment.prepare_environment` first, before transformers is imported.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import torch
from huggingface_hub.errors import (
    EntryNotFoundError,
    HFValidationError,
    LocalEntryNotFoundError,
)
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.utils import logging as transformers_logging
from transformers.utils.hub import cached_file

from models.codec import TokenizerCodec
from models.device import choose_device, device_name, free_memory
from models.environment import bound_product_cache
from models.native import speedups
from models.packed.build import SpeedUp, Spoiled, build
from models.packed.memory import Wishes
from models.packed.model import Unpackable
from models.packed.probe import first_line
from models.padded import PaddedRunner
from models.quantization import (
    DTYPES,
    Quantization,
    compute_dtype,
    default_quantization,
    load_arguments,
    pays_dense,
    true_parameters,
)
from models.revision import revision_of
from models.runner import Chunk, ModelInfo, Place, Region, Row, Runner, SamplingParams, StepPlan
from models.safety import CONFIGS, refuse_code, refuse_unsafe_folder
from models.templates import with_args
from penstock.errors import ModelError, ModelNotFound, PenstockError, UnsafeModel
from penstock.telemetry import get_logger

log = get_logger(__name__)

DEFAULT_CONTEXT = 2048  #: of a model that does not say
LONGEST_CONTEXT = 10_000_000  #: a tokenizer without a limit says 10**30


@dataclass(frozen=True, slots=True)
class LoadOptions:
    """What to load and how. `None` lets the device decide.

    `dense`: int4 weights are unpacked once at load, which takes the memory of 16 bits and is faster
    for many rows. `runner`: `auto` runs packed what can be. `kv_tokens`: keys and values of so many
    tokens, or of `kv_share` of the memory that is free. `express_rows` come on top of `max_rows`.
    """

    name: str
    revision: str | None = None
    quantization: Quantization | None = None
    device: str | None = None
    threads: int | None = None
    hub_allowed: bool = False
    dense: bool | None = None
    runner: Literal["auto", "packed", "padded"] = "auto"
    kv_tokens: int | None = None
    kv_share: float | None = None
    max_rows: int | None = None
    express_rows: int = 8
    template_args: Mapping[str, str | int | float | bool] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Loaded:
    model: Any
    tokenizer: Any
    info: ModelInfo


def load(options: LoadOptions, *, speed_up: SpeedUp = speedups.apply) -> Runner:
    """Raises ModelNotFound, UnsafeModel or ModelError, each with one sentence that says why."""
    bound_product_cache()
    # In a thread that ends: its pool of OpenMP threads ends with it. One that stays beside the
    # engine's makes more threads than cores, and OpenMP then sleeps at each of its barriers: a
    # step of one row took 1.6 times as long, of the padded runner three times.
    with ThreadPoolExecutor(1, thread_name_prefix="load") as thread:
        return thread.submit(_load_here, options, speed_up).result()


def _load_here(options: LoadOptions, speed_up: SpeedUp) -> Runner:
    _quiet()
    if options.threads is not None:
        torch.set_num_threads(options.threads)
    device = choose_device(options.device)
    place, options = _check(options)
    loaded = _load(place, options, device)
    if options.runner == "padded":
        runner: Runner = _padded(loaded, "asked for")
    else:
        try:
            runner = _packed(loaded, options, speed_up)
        except Spoiled as error:
            log.warning("model.loaded_again", name=options.name, reason=str(error))
            del loaded
            runner = _packed(_load(place, options, device), options, None)
    _warm_up(runner)
    return runner


def _packed(loaded: _Loaded, options: LoadOptions, speed_up: SpeedUp | None) -> Runner:
    """The packed runner where the model passes its probe, else the padded one. Raises Spoiled."""
    wishes = Wishes(options.kv_tokens, options.kv_share, options.max_rows, options.express_rows)
    try:
        return build(loaded.model, loaded.tokenizer, loaded.info, wishes, speed_up=speed_up)
    except Spoiled:
        raise
    except Unpackable as error:
        if options.runner == "packed":
            raise ModelError(f"{options.name} cannot be run packed: {error}.") from error
        log.warning("model.not_packed", name=options.name, reason=str(error))
        return _padded(loaded, str(error))


def _padded(loaded: _Loaded, reason: str) -> PaddedRunner:
    notes = (*loaded.info.notes, f"runs padded: {reason}")
    return PaddedRunner(loaded.model, loaded.tokenizer, replace(loaded.info, notes=notes))


def _load(place: str, options: LoadOptions, device: torch.device) -> _Loaded:
    quantization = options.quantization or default_quantization(device)
    dtype = compute_dtype(quantization, device)
    notes = []
    try:
        model, tokenizer = _read(place, options, quantization, device)
        parameters = true_parameters(model)
        dense = quantization == "int4" and options.dense is not False
        if dense and (options.dense or pays_dense(model, dtype, device, free_memory(device))):
            model = model.dequantize(dtype=dtype)
            notes.append("int4 weights unpacked at load")
    except torch.OutOfMemoryError as error:
        raise ModelError(f"{options.name} does not fit on {device} as {quantization}.") from error
    except UnsafeModel:
        raise
    except Exception as error:  # whatever a damaged or unknown model makes the libraries raise
        log.warning("model.not_loaded", name=options.name, exc_info=True)
        raise ModelError(f"{options.name} cannot be loaded: {first_line(error)}") from error
    if DTYPES.get(quantization) is not dtype:
        notes.append(f"computes in {_short(dtype)}")
    info = ModelInfo(
        name=options.name,
        parameters=parameters,
        memory_bytes=model.get_memory_footprint(),
        device=str(device),
        quantization=quantization,
        context=context_length(model.config, tokenizer),
        runner="padded",
        notes=tuple(notes),
        revision=revision_of(place, options.revision),
        dtype=_short(dtype),
        device_name=device_name(device),
    )
    return _Loaded(model, tokenizer, info)


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
    if options.template_args and tokenizer.chat_template:
        template = with_args(tokenizer.get_chat_template(), options.template_args)
        tokenizer.chat_template = template
    TokenizerCodec(tokenizer).check_template()
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


def _check(options: LoadOptions) -> tuple[str, LoadOptions]:
    """Find the model and refuse what is unsafe. Returns what transformers is to load: of a hub
    model the commit that was looked at, whatever its branch is moved to meanwhile."""
    folder = Path(options.name).expanduser()
    if folder.is_dir():
        if not (folder / "config.json").is_file():
            raise ModelNotFound(f"{options.name} is not a model: it has no config.json.")
        refuse_unsafe_folder(folder)
        return str(folder), options
    if folder.exists():
        raise ModelNotFound(f"{options.name} is a file; a model is a folder.")
    if not options.hub_allowed:
        raise ModelNotFound(f"There is no folder {options.name!r}.")
    for name in CONFIGS:
        config = _hub_file(options, name)
        if config is not None:
            refuse_code(config)
            options = replace(options, revision=config.parent.name)
    log.info("model.pinned", name=options.name, revision=options.revision)
    return options.name, options


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


def _warm_up(runner: Runner) -> None:
    """A prompt and its answer: int8 weights are packed at the first step, and a model that cannot
    run says so now."""
    row = Row("warm-up", (0, 0), SamplingParams(max_tokens=2, temperature=0))
    first = StepPlan(
        admit=(row,), places=(Place(Region(0, 4)),), chunks=(Chunk(row.id, len(row.prompt)),)
    )
    try:
        output = runner.step(first)
        while output.pending or not any(step.finish for step in output.rows):
            output = runner.step(StepPlan())
        runner.forget(0)
    except PenstockError:
        raise
    except Exception as error:
        log.warning("model.not_warm", name=runner.info.name, exc_info=True)
        raise ModelError(f"{runner.info.name} cannot run: {first_line(error)}") from error


def _quiet() -> None:
    """Python warnings stay what they are; what transformers logs is not for users."""
    logs: Any = transformers_logging
    logs.set_verbosity_error()
    logs.disable_progress_bar()
    # It repeats at every step of an int8 model that its input is cast.
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)


def _short(dtype: torch.dtype) -> str:
    return next(name for name, known in DTYPES.items() if known is dtype)
