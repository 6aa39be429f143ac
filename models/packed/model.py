"""An unmodified transformers model, run on packed tokens: one forward of [1, T] tokens whose
attention is ours. Knows no row and no sampling.

The way in is transformers' public `AttentionInterface`; a name that has no mask function makes it
skip the mask. See https://huggingface.co/docs/transformers/attention_interface.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

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
class _Record:
    """What the attention layers of a forward are, as they call the attention function."""

    seen: list[tuple[int, LayerShape]] = field(default_factory=list)
    deferred: bool = False


@runtime_checkable
class Head(Protocol):
    """An output layer that can tell the likeliest tokens without all logits. While `deferred()` it
    hands on what it is given."""

    def __call__(self, hidden: torch.Tensor, /) -> torch.Tensor: ...

    def likeliest(self, hidden: torch.Tensor, /) -> torch.Tensor: ...


_thread = threading.local()


class PackedModel:
    """Runs packed forwards. While it lives, the model's attention is ours."""

    def __init__(self, model: Any, attend: Attend) -> None:
        self._model = model
        self._attend = attend
        self.device = torch.device(model.device)
        AttentionInterface.register(NAME, _attention)
        model.set_attn_implementation(NAME)
        with torch.inference_mode():
            self.layers = self._layers()
            self._head = self._sound_head()

    def _layers(self) -> list[LayerShape]:
        """The shape of every attention layer, as a forward of two tokens shows it. Raises
        Unpackable for a model that calls attention in another way than once a layer."""
        layout = Layout.plain([0, 0], self.device)
        record = _Record()
        self._run(layout, record)
        if not record.seen:
            raise Unpackable("its attention is not called through transformers' interface")
        if [index for index, _ in record.seen] != list(range(len(record.seen))):
            raise Unpackable("attention is not called once in each layer, in order")
        return [shape for _, shape in record.seen]

    def _sound_head(self) -> Head | None:
        """The model's output layer, if it is a `Head` and nothing is done to what it says."""
        head = self._model.get_output_embeddings()
        if not isinstance(head, Head):
            return None
        layout = Layout.plain(list(range(8)), self.device)
        layout.keep = torch.arange(layout.size, device=self.device)
        logits = self._run(layout, _Record())
        try:
            hidden = self._run(layout, _Record(deferred=True))
            same = torch.equal(head(hidden[None])[0], logits)
        except Exception:  # whatever a model raises that counts on all logits
            return None
        return head if same and bool(logits.any()) else None

    @property
    def screens(self) -> bool:
        """Whether it can tell the likeliest tokens without all logits."""
        return self._head is not None

    def forward(self, layout: Layout, store: Store) -> torch.Tensor:
        """Logits [N, V] of the tokens in `layout.keep`."""
        return self._run(layout, Running(layout, store, self._attend))

    def likeliest(self, layout: Layout, store: Store) -> torch.Tensor | None:
        """The likeliest tokens [N] after those in `layout.keep`. None, and nothing was run, where
        it makes logits only."""
        if self._head is None:
            return None
        hidden = self._run(layout, Running(layout, store, self._attend, deferred=True))
        return self._head.likeliest(hidden)

    def _run(self, layout: Layout, state: Running | _Record) -> torch.Tensor:
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


@dataclass(frozen=True, slots=True)
class Running:
    """The forward that runs in this thread, for layers that know of it."""

    layout: Layout
    store: Store
    attend: Attend
    deferred: bool = False

    def kept(self) -> torch.Tensor | None:
        """Which tokens are wanted, [N]: after the last layer's keys and values nobody reads the
        others. None: all."""
        return None if len(self.layout.keep) == self.layout.size else self.layout.keep

    def look(
        self,
        layer: int,
        query: torch.Tensor,
        *,
        scaling: float | None,
        window: int | None,
        softcap: float | None = None,
    ) -> torch.Tensor:
        """Attention [T, H, D_v] of queries [H, T, D], once keys and values are in the store; of
        those that are kept, if there are only as many."""
        fewer = query.shape[1] < self.layout.size
        return self.attend(
            query,
            self.store.keys[layer],
            self.store.values[layer],
            self.layout.kept() if fewer else self.layout,
            scaling=query.shape[-1] ** -0.5 if scaling is None else scaling,
            window=window,
            softcap=softcap,
        )


def running() -> Running | None:
    """None: no forward of ours runs, or one that only records."""
    state: Running | _Record | None = getattr(_thread, "state", None)
    return state if isinstance(state, Running) else None


def deferred() -> bool:
    """Whether the forward of this thread is to end before its logits."""
    state: Running | _Record | None = getattr(_thread, "state", None)
    return state is not None and state.deferred


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
    state: Running | _Record = _thread.state
    layer: int = module.layer_idx
    if isinstance(state, _Record):
        _refuse(attention_mask, others)
        heads, key_size, value_size = key.shape[1], key.shape[3], value.shape[3]
        state.seen.append((layer, LayerShape(heads, key_size, value_size, key.dtype)))
        shape = (1, query.shape[2], query.shape[1], value_size)
        return torch.zeros(shape, dtype=query.dtype, device=query.device), None
    state.store.write(layer, state.layout.write, key[0], value[0])
    out = state.look(layer, query[0], scaling=scaling, window=sliding_window, softcap=softcap)
    return out[None], None


def _refuse(mask: torch.Tensor | None, others: dict[str, Any]) -> None:
    """Raises Unpackable for what we would ignore, and must not."""
    unknown = [name for name, value in others.items() if value is not None]
    unknown = [name for name in unknown if name not in HARMLESS]
    if unknown:
        raise Unpackable(f"its attention takes {', '.join(sorted(unknown))}")
    if mask is not None:
        raise Unpackable("its attention takes a mask of its own")
