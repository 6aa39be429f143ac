"""An unmodified transformers model, run on packed tokens: one forward of [1, T] tokens whose
attention is ours. Knows no row and no sampling.

The way in is transformers' public `AttentionInterface`; a name that has no mask function makes it
skip the mask. See https://huggingface.co/docs/transformers/attention_interface.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import Any

import torch
from transformers import AttentionInterface

from models.packed.attention import Attend
from models.packed.layout import Layout
from models.packed.store import LayerShape, Store

NAME = "penstock_packed"
#: Arguments of an attention function that change nothing here, whatever they are.
HARMLESS = frozenset(
    {
        "cache_position",
        "dropout",
        "is_causal",
        "logits_to_keep",
        "output_attentions",
        "output_hidden_states",
        "output_router_logits",
        "position_ids",
        "return_dict",
        "use_cache",
    }
)


class Unpackable(Exception):
    """Raised when a model cannot be run on packed tokens; the message says why."""


@dataclass(slots=True)
class _Pass:
    """What the attention function finds in its thread while a forward runs."""

    layout: Layout | None = None
    store: Store | None = None
    attend: Attend | None = None
    seen: list[tuple[int, LayerShape]] = field(default_factory=list)  # of a pass that records


_thread = threading.local()


class PackedModel:
    """Runs packed forwards. While it lives, the model's attention is ours."""

    def __init__(self, model: Any, attend: Attend) -> None:
        self._model = model
        self._attend = attend
        self.device = torch.device(model.device)
        AttentionInterface.register(NAME, _attention)
        model.set_attn_implementation(NAME)
        self.layers = self._layers()

    def _layers(self) -> list[LayerShape]:
        """The shape of every attention layer, as a forward of two tokens shows it. Raises
        Unpackable for a model that calls attention in another way than once a layer."""
        layout = Layout.plain([0, 0], self.device)
        record = _Pass()
        self._run(layout, record)
        if not record.seen:
            raise Unpackable("its attention is not called through transformers' interface")
        if [index for index, _ in record.seen] != list(range(len(record.seen))):
            raise Unpackable("attention is not called once in each layer, in order")
        return [shape for _, shape in record.seen]

    def forward(self, layout: Layout, store: Store) -> torch.Tensor:
        """Logits [N, V] of the tokens in `layout.keep`."""
        return self._run(layout, _Pass(layout, store, self._attend))

    def _run(self, layout: Layout, state: _Pass) -> torch.Tensor:
        _thread.state = state
        try:
            out = self._model(
                input_ids=layout.tokens[None],
                position_ids=layout.positions[None],
                use_cache=False,
                logits_to_keep=layout.keep,
            )
        finally:
            _thread.state = None
        logits: torch.Tensor = out.logits[0]
        return logits


def kept() -> torch.Tensor | None:
    """Which tokens of the forward that runs in this thread are wanted, [N]: after its last layer's
    keys and values nobody reads the others. None: all, or no forward of ours runs."""
    state: _Pass | None = getattr(_thread, "state", None)
    if state is None or state.layout is None or len(state.layout.keep) == state.layout.size:
        return None
    return state.layout.keep


def _attention(
    module: Any,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    sliding_window: int | None = None,
    softcap: float | None = None,
    **others: Any,
) -> tuple[torch.Tensor, None]:
    """Called by transformers in each layer with [1, H, T, D]; returns [1, T, H, D_v]."""
    state: _Pass = _thread.state
    layer: int = module.layer_idx
    if state.layout is None or state.store is None or state.attend is None:
        _refuse(attention_mask, others)
        heads, key_size, value_size = key.shape[1], key.shape[3], value.shape[3]
        state.seen.append((layer, LayerShape(heads, key_size, value_size, key.dtype)))
        shape = (1, query.shape[2], query.shape[1], value_size)
        return torch.zeros(shape, dtype=query.dtype, device=query.device), None
    state.store.write(layer, state.layout.write, key[0], value[0])
    fewer = query.shape[2] < key.shape[2]  # NativeLayer, the last one: it goes on with what is kept
    out = state.attend(
        query[0],
        state.store.keys[layer],
        state.store.values[layer],
        state.layout.kept() if fewer else state.layout,
        scaling=query.shape[-1] ** -0.5 if scaling is None else scaling,
        window=sliding_window,
        softcap=softcap,
    )
    return out[None], None


def _refuse(mask: torch.Tensor | None, others: dict[str, Any]) -> None:
    """Raises Unpackable for what we would ignore, and must not."""
    unknown = [name for name, value in others.items() if value is not None]
    unknown = [name for name in unknown if name not in HARMLESS]
    if unknown:
        raise Unpackable(f"its attention takes {', '.join(sorted(unknown))}")
    if mask is not None:
        raise Unpackable("its attention takes a mask of its own")
