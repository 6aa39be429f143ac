"""Decoder layers of the Llama kind as few calls: one product for queries, keys and values, sums as
part of the products before them, and no module between. A layer that says something else of random
numbers, or hands its attention something else, is left alone."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from transformers import AttentionInterface
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from models.native.feed_forward import TorchFeedForward
from models.native.library import how
from models.native.linear import LaidOut, lay_out, packable, replace_children, same
from models.native.norm import NativeNorm, TorchNorm
from models.native.placing import NativePlacing
from models.native.rotary import NAME as ROTARY
from models.native.rotary import NativeRotary, Pair
from models.native.whole import Parts, WholeLayer, whole
from models.packed.model import HARMLESS, Running, running

PARTS = frozenset({"self_attn", "mlp", "input_layernorm", "post_attention_layernorm"})
PRODUCTS = ("q_proj", "k_proj", "v_proj", "o_proj")
NORMS = ("q_norm", "k_norm")
TRIAL = "penstock_trial"  #: attention while a layer is tried
TOLD = frozenset({"scaling", "sliding_window"})  #: what a layer tells its attention each time


class TorchLayer(nn.Module):
    """h = x + o(attend(rotate(q, k, v = qkv(norm(x))))), then h + down(gate(norm(h)))."""

    def __init__(self, layer: Any, told: dict[str, Any]) -> None:
        super().__init__()
        attention = layer.self_attn
        self.head_dim: int = attention.head_dim
        self.scaling: float = told.get("scaling", self.head_dim**-0.5)
        self.sliding_window: int | None = told.get("sliding_window")
        self.input_layernorm: TorchNorm = layer.input_layernorm
        self.post_attention_layernorm: TorchNorm = layer.post_attention_layernorm
        self.mlp: TorchFeedForward = layer.mlp
        self.self_attn = attention
        self.q_norm = getattr(attention, "q_norm", None)
        self.k_norm = getattr(attention, "k_norm", None)
        self.qkv = _joined([getattr(attention, name) for name in PRODUCTS[:3]])
        self.o_proj = lay_out(attention.o_proj.weight, attention.o_proj.bias)
        widths = (getattr(attention, name).out_features for name in PRODUCTS[:3])
        self._heads = [width // self.head_dim for width in widths]
        self._is_last = attention.layer_idx == attention.config.num_hidden_layers - 1

    def forward(
        self,
        hidden_states: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None,
        past_key_values: None = None,
        use_cache: bool | None = False,
        position_embeddings: Pair | None = None,
        **others: Any,
    ) -> torch.Tensor:
        """[1, T, hidden] to the same; of the last layer, only those that are kept mean anything.
        Raises ValueError for what packed steps do without."""
        if past_key_values is not None or position_embeddings is None:
            raise ValueError("a swapped layer keeps no cache, and needs rotary positions")
        step = running()
        keep = step.kept() if step is not None and self._is_last else None
        done = self._at_once(hidden_states, position_embeddings, step, keep)
        if done is not None:
            return done
        qkv = self.input_layernorm.then(self.qkv, hidden_states)
        seen = self._placed(qkv, position_embeddings, step, keep)
        if seen is None:
            query, key, value = self._turned(qkv, position_embeddings)
            attend = ALL_ATTENTION_FUNCTIONS[self.self_attn.config._attn_implementation]
            seen, _ = attend(
                self.self_attn,
                query if keep is None else query[:, :, keep],
                key,
                value,
                attention_mask,
                dropout=0.0,
                scaling=self.scaling,
                sliding_window=self.sliding_window,
                **others,
            )
        residual = hidden_states if keep is None else hidden_states[:, keep]
        hidden = self.o_proj.plus(seen.flatten(2), residual)
        hidden = self.mlp.plus(hidden, self.post_attention_layernorm)
        return hidden if keep is None else hidden_states.index_copy(1, keep, hidden)

    def _at_once(
        self, x: torch.Tensor, positions: Pair, step: Running | None, keep: torch.Tensor | None
    ) -> torch.Tensor | None:
        """What the layer makes of x. None: not a case for it."""
        return None

    def _placed(
        self, qkv: torch.Tensor, positions: Pair, step: Running | None, keep: torch.Tensor | None
    ) -> torch.Tensor | None:
        """What the tokens see, [1, T, H, D], with keys and values put into the arena on the way.
        None: not a case for it."""
        return None

    def _turned(
        self, qkv: torch.Tensor, positions: Pair
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Queries, keys and values, [1, H, T, D]."""
        query, key, value = self._split(qkv)
        if self.q_norm is not None and self.k_norm is not None:
            query, key = _rotated(query, *positions), _rotated(key, *positions)
        else:  # they still lie side by side
            *both, _ = self._heads
            heads = qkv.view(*qkv.shape[:2], -1, self.head_dim)[:, :, : sum(both)]
            query, key = torch.split(_rotated(heads, *positions), both, dim=2)
        return query.transpose(1, 2), key.transpose(1, 2), value.transpose(1, 2)

    def _split(self, qkv: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Queries, keys and values, [1, T, H, D], the former two normed where the layer does so."""
        heads = qkv.view(*qkv.shape[:2], -1, self.head_dim)
        query, key, value = torch.split(heads, self._heads, dim=2)
        if self.q_norm is not None and self.k_norm is not None:
            query, key = self.q_norm(query), self.k_norm(key)
        return query, key, value


class NativeLayer(TorchLayer):
    """One call where all of it is compiled, else a few."""

    def __init__(self, layer: Any, told: dict[str, Any], library: ctypes.CDLL) -> None:
        super().__init__(layer, told)
        self._rotary = getattr(sys.modules[type(self.self_attn).__module__], ROTARY)
        plain = isinstance(self._rotary, NativeRotary) and self.q_norm is None
        fits = plain and self.head_dim % 32 == 0
        self._place = NativePlacing(library) if fits else None
        self._whole = self._in_one(library) if fits else None

    def _in_one(self, library: ctypes.CDLL) -> WholeLayer | None:
        before, after = self.input_layernorm, self.post_attention_layernorm
        if not (isinstance(before, NativeNorm) and isinstance(after, NativeNorm)):
            return None
        both, down = self.mlp.both, self.mlp.down_proj
        parts = Parts(before.norm, self.qkv, self.o_proj, after.norm, both, down)
        return whole(library, parts, self.scaling, self.sliding_window)

    def _at_once(
        self, x: torch.Tensor, positions: Pair, step: Running | None, keep: torch.Tensor | None
    ) -> torch.Tensor | None:
        if step is None or self._whole is None:
            return None
        return self._whole(x, *positions, self.self_attn.layer_idx, step, keep)

    def _placed(
        self, qkv: torch.Tensor, positions: Pair, step: Running | None, keep: torch.Tensor | None
    ) -> torch.Tensor | None:
        if step is None or self._place is None:
            return None
        index: int = self.self_attn.layer_idx
        keys, values = step.store.keys[index], step.store.values[index]
        query = self._place(qkv, *positions, keys, values, step.layout.write)
        if query is None:
            return None
        query = query if keep is None else query[:, keep]
        seen = step.look(index, query, scaling=self.scaling, window=self.sliding_window)
        return seen[None]

    def _turned(
        self, qkv: torch.Tensor, positions: Pair
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        query, key, value = self._split(qkv)
        query, key = self._rotary(query.transpose(1, 2), key.transpose(1, 2), *positions)
        return query, key, value.transpose(1, 2)


def _rotated(heads: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """Each number of a head [1, T, H, D] turned with the one half a head further; cos and sin
    [1, T, D]."""
    out = heads * cos[:, :, None]
    (x, y), (low, high) = heads.chunk(2, dim=-1), sin[:, :, None].chunk(2, dim=-1)
    first, second = out.chunk(2, dim=-1)
    first.addcmul_(y, low, value=-1)
    second.addcmul_(x, high)
    return out


@torch.inference_mode()
def swap(model: Any, library: ctypes.CDLL | None) -> list[str]:
    """In place; returns what it did, in words. After norms, feed-forward layers and rotary
    positions have been swapped."""
    with _trial(model):
        swapped = replace_children(model, lambda child: _ours(child, library))
    return [f"{swapped} decoder layers {how(library)}"] if swapped else []


def _fits(layer: Any) -> bool:
    if {name for name, _ in layer.named_children()} != PARTS:
        return False
    norms = (layer.input_layernorm, layer.post_attention_layernorm)
    attention = layer.self_attn
    names = {name for name, _ in attention.named_children()}
    return (
        isinstance(layer.mlp, TorchFeedForward)
        and all(isinstance(norm, TorchNorm) for norm in norms)
        and names in (set(PRODUCTS), {*PRODUCTS, *NORMS})
        and all(packable(getattr(attention, name)) for name in PRODUCTS)
        and len({getattr(attention, name).bias is None for name in PRODUCTS[:3]}) == 1
        and isinstance(getattr(attention, "head_dim", None), int)
        and hasattr(sys.modules[type(attention).__module__], ROTARY)
    )


def _ours(layer: Any, library: ctypes.CDLL | None) -> TorchLayer | None:
    """None where the layer is not what it looks like, else one that has taken its weights."""
    if not _fits(layer):
        return None
    size = layer.self_attn.q_proj.in_features
    theirs = _Tried(layer)
    try:
        theirs(torch.zeros(1, 1, size, dtype=layer.self_attn.q_proj.weight.dtype))
        if not theirs.told.keys() <= TOLD | HARMLESS:
            return None
        if library is None:
            ours = TorchLayer(layer, theirs.told)
        else:
            ours = NativeLayer(layer, theirs.told, library)
        right = same(_Tried(ours), theirs, size, layer.self_attn.q_proj.weight.dtype)
    except (RuntimeError, AttributeError, TypeError, ValueError):
        return None
    if not right:
        return None
    _strip(layer.self_attn)
    return ours


class _Tried(nn.Module):
    """A layer on its own, with made-up positions and an attention that only mixes what it gets."""

    def __init__(self, layer: Any) -> None:
        super().__init__()
        self.layer = layer
        self.told: dict[str, Any] = {}

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        generator = torch.Generator().manual_seed(1)
        shape = (1, x.shape[1], self.layer.self_attn.head_dim)
        cos, sin = (torch.randn(shape, generator=generator).to(x.dtype) for _ in range(2))
        out: torch.Tensor = self.layer(
            x,
            attention_mask=None,
            position_ids=None,
            past_key_values=None,
            use_cache=False,
            position_embeddings=(cos, sin),
            penstock_told=self.told,
        )
        return out


def _mix(
    module: Any,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    penstock_told: dict[str, Any],
    **told: Any,
) -> tuple[torch.Tensor, None]:
    """Something that depends on all three, [1, T, H, D]."""
    penstock_told.update({name: one for name, one in told.items() if one is not None})
    times = query.shape[1] // key.shape[1]
    key, value = (x.repeat_interleave(times, dim=1) for x in (key, value))
    return (query * key.sigmoid() + value).transpose(1, 2).contiguous(), None


@contextmanager
def _trial(model: Any) -> Iterator[None]:
    before = model.config._attn_implementation
    AttentionInterface.register(TRIAL, _mix)
    model.set_attn_implementation(TRIAL)
    try:
        yield
    finally:
        model.set_attn_implementation(before)


def _joined(linears: list[nn.Linear]) -> LaidOut:
    weights: list[torch.Tensor] = [linear.weight for linear in linears]
    biases: list[torch.Tensor] = [one.bias for one in linears if one.bias is not None]
    return lay_out(torch.cat(weights), torch.cat(biases) if biases else None)


def _strip(attention: Any) -> None:
    """Free the weights that are kept laid out now."""
    for name in PRODUCTS:
        delattr(attention, name)
