"""A loaded model to a packed runner: probed, with the best attention there is, sized to the memory
that is left. Raises `Unpackable` with the reason when the model must not be run so."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any

import torch
from transformers import PreTrainedTokenizerBase

from models.answers import Answers
from models.codec import TokenizerCodec
from models.device import free_memory, is_out_of_memory
from models.drawing import Likeliest, likeliest
from models.grammar import Grammars
from models.native import attention as native_attention
from models.native import greatest as native_greatest
from models.native import refine as native_refine
from models.native.writing import load_write
from models.packed import memory, torch_attention, varlen
from models.packed.attention import Attend
from models.packed.graphs import Graphs
from models.packed.head import screened
from models.packed.memory import Shape, Sizes, Wishes
from models.packed.model import PackedModel, Unpackable
from models.packed.probe import Probe
from models.packed.runner import PackedRunner
from models.packed.store import Store, write_plain
from models.padded import end_tokens
from models.runner import ModelInfo
from models.sampling import Sampler
from penstock.errors import ModelError
from penstock.telemetry import get_logger

log = get_logger(__name__)

#: Makes a model's layers faster in place; returns what it did, in words.
SpeedUp = Callable[[Any], Iterable[str]]

PREFIX_SLOTS = 16  #: of prefixes that are being read, beside the rows


class Spoiled(Unpackable):
    """Raised when what makes a model faster has changed what it says. It must be loaded anew."""


@dataclass(frozen=True, slots=True)
class _Ready:
    """A model that has passed, and how it attends."""

    model: PackedModel
    attend: Attend
    vocabulary: int
    notes: tuple[str, ...]


def build(
    model: Any,
    tokenizer: PreTrainedTokenizerBase,
    info: ModelInfo,
    wishes: Wishes,
    *,
    speed_up: SpeedUp | None,
) -> PackedRunner:
    """`info` without what is found out here; `speed_up` is for the CPU. Raises Unpackable, with the
    model as it was; Spoiled; ModelError when there is not memory enough."""
    device = torch.device(model.device)
    probe = Probe(model, info.context)
    plain = probe.check(torch_attention.attend)
    ready = _Ready(plain, torch_attention.attend, probe.vocabulary, ("attention in plain torch",))
    if device.type == "cuda":
        ready = _on_cuda(model, probe, ready)
    else:
        ready = _on_cpu(model, probe, ready, speed_up)
    sizes = _sizes(model, ready, info.context, wishes)
    slots = sizes.max_rows + wishes.express_rows + PREFIX_SLOTS
    store = _allocate(ready.model, sizes, device)
    ends = end_tokens(model, tokenizer)
    grammars = Grammars(tokenizer, ready.vocabulary, ends)
    return PackedRunner(
        _forwarder(ready, sizes),
        store,
        Sampler(slots, ready.vocabulary, device, ends, grammars, _likeliest(device)),
        Answers(slots, tokenizer, ends),
        TokenizerCodec(tokenizer),
        replace(
            info,
            runner="packed",
            context=sizes.longest,
            notes=(*info.notes, *ready.notes, str(sizes)),
            max_rows=sizes.max_rows,
            kv_tokens=sizes.kv_tokens,
            kv_bytes=store.bytes,
            step_tokens=memory.STEP_TOKENS,
        ),
        slots,
    )


def _on_cuda(model: Any, probe: Probe, ready: _Ready) -> _Ready:
    attend = varlen.load(torch.device(model.device), model.dtype)
    if attend is None:
        return ready
    return _try(probe, ready, attend, "attention by torch's variable-length kernel")


def _on_cpu(model: Any, probe: Probe, ready: _Ready, speed_up: SpeedUp | None) -> _Ready:
    """Faster layers and the compiled kernel, each only while logits stay the model's own."""
    faster: tuple[str, ...] = ()
    if speed_up is not None:
        faster = (*_screen(model, ready.attend), *speed_up(model))
    if faster:
        try:
            packed = probe.check(ready.attend)
        except Unpackable as error:
            raise Spoiled(f"with {', '.join(faster)} {error}") from error
        ready = replace(ready, model=packed, notes=(*ready.notes, *faster))
    attend = native_attention.load()
    return ready if attend is None else _try(probe, ready, attend, "attention by a compiled kernel")


def _screen(model: Any, attend: Attend) -> tuple[str, ...]:
    """Another output layer, if it can be had and the model does nothing to what it says."""
    own = model.get_output_embeddings()
    head = screened(own, native_refine.load(), _likeliest(torch.device(model.device)))
    if head is None:
        return ()
    model.set_output_embeddings(head)
    if PackedModel(model, attend).screens:
        return (f"the likeliest token screened in {head.rough.name}",)
    model.set_output_embeddings(own)
    return ()


def _try(probe: Probe, ready: _Ready, attend: Attend, note: str) -> _Ready:
    """With another attention, unless the model's logits are not its own then."""
    try:
        packed = probe.check(attend)
    except Unpackable as error:
        log.warning("attention.not_used", attention=note, reason=str(error))
        return replace(ready, model=probe.check(ready.attend))
    return replace(ready, model=packed, attend=attend, notes=(note, *ready.notes[1:]))


def _sizes(model: Any, ready: _Ready, context: int, wishes: Wishes) -> Sizes:
    config = model.config.get_text_config()
    width = max(4 * config.hidden_size, getattr(config, "intermediate_size", None) or 0)
    shape = Shape(ready.model.layers, context, ready.vocabulary, width)
    device = ready.model.device
    return memory.derive(shape, wishes, device, free_memory(device))


def _allocate(model: PackedModel, sizes: Sizes, device: torch.device) -> Store:
    # One position more is for what a recorded step writes where it has no token.
    try:
        write = load_write() if device.type == "cpu" else None
        return Store(model.layers, sizes.kv_tokens + 1, device, write or write_plain)
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        raise ModelError(
            f"{sizes.kv_bytes:,} bytes for keys and values of {sizes.kv_tokens:,} tokens"
            f" cannot be had on {device}.",
            param="kv_tokens",
        ) from error


def _likeliest(device: torch.device) -> Likeliest:
    return (native_greatest.load() if device.type == "cpu" else None) or likeliest


def _forwarder(ready: _Ready, sizes: Sizes) -> PackedModel | Graphs:
    if ready.model.device.type == "cuda" and isinstance(ready.attend, varlen.VarlenAttend):
        return Graphs(ready.model, ready.attend, sizes.kv_tokens, sizes.longest)
    return ready.model
