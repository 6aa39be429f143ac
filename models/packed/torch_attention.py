"""Attention over the arena in plain torch, on any device: short decode rows in groups of like
length, long ones and prompts where they lie. A beginning that rows share is attended to in one
product for all of them, and merged with each row's own part by log-sum-exp (FlashAttention's rule,
arXiv:2205.14135)."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray

from models.packed.layout import Ints, Layout

GROUPS = 4  #: of decode rows, at most
#: Bytes of a row's keys from which, on a CPU, it costs more to gather them than a call of its own.
APART = 80 * 1024
NOTE = "torch_attention"

Part = tuple[torch.Tensor, torch.Tensor]  #: output [n, H, q, D_v] and log-sum-exp [n, H, q]


@dataclass(slots=True)
class _Group:
    """n rows of q tokens each, padded to L keys. Columns that a token does not see are masked."""

    keys: torch.Tensor | slice  # positions of the arena, [n, L], or those of one row
    hidden: NDArray[np.bool_]  # [n, q, L]
    places: Ints  # [n, q], of the tokens
    key_places: Ints  # [n, L]
    masks: dict[int | None, torch.Tensor | None] = field(default_factory=dict)
    indices: dict[tuple[int, int], torch.Tensor] = field(default_factory=dict)

    def of(self, packed: torch.Tensor) -> torch.Tensor:
        """Its keys of the arena's [H, P, D], as [n, H, L, D]."""
        heads, positions, size = packed.shape
        if isinstance(self.keys, slice):
            return packed[None, :, self.keys]
        shape = (heads, positions)
        if shape not in self.indices:  # made once a step; whole rows of D are fast to gather
            first = torch.arange(heads, device=self.keys.device)[:, None] * positions
            self.indices[shape] = (self.keys[:, None] + first).flatten()
        taken = packed.view(-1, size).index_select(0, self.indices[shape])
        return taken.view(len(self.keys), heads, -1, size)

    def mask(self, window: int | None, like: torch.Tensor) -> torch.Tensor | None:
        """Additive [n, 1, q, L]; None where nothing is hidden. Made once a step and window."""
        if window not in self.masks:
            hidden, made = self.hidden, None
            if window is not None:
                behind = self.places[:, :, None] - self.key_places[:, None]
                hidden = hidden | (behind >= window)
            if hidden.any():
                made = torch.zeros(hidden.shape, dtype=like.dtype)
                made.masked_fill_(torch.from_numpy(hidden), -torch.inf)
                made = made[:, None].to(like.device)
            self.masks[window] = made
        return self.masks[window]


@dataclass(slots=True)
class _Shared:
    """All tokens that share one beginning."""

    tokens: torch.Tensor
    keys: slice
    places: torch.Tensor  # [n], of the tokens
    start: torch.Tensor  # [p], places of the keys


@dataclass(slots=True)
class _Apart:
    """Decode rows of one token each that are long enough for a call of their own."""

    ends: list[int]  # of their keys in the arena
    visible: list[int]


@dataclass(slots=True)
class _Plan:
    """The step's tokens in another order: those of each group together, then those apart."""

    plain: bool  # whether no beginning is shared and no score is capped
    order: torch.Tensor | None  # [T], the step's tokens; None: as they are
    back: torch.Tensor | None  # [T], where each of them went
    counts: list[int]  # of tokens, by group, then of those apart
    groups: list[_Group]
    apart: _Apart | None
    shared: list[_Shared]


def attend(
    query: torch.Tensor,
    keys: torch.Tensor,
    values: torch.Tensor,
    layout: Layout,
    *,
    scaling: float,
    window: int | None = None,
    softcap: float | None = None,
) -> torch.Tensor:
    """See `models.packed.attention.Attend`."""
    heads, size, width = query.shape
    if not size:
        return query.new_empty(0, heads, values.shape[-1])
    plan = layout.notes.get(NOTE)
    plain = softcap is None and not layout.prefix_length.any()
    if not isinstance(plan, _Plan) or plan.plain != plain:
        plan = layout.notes[NOTE] = _plan(layout, keys, plain)
    tokens = _moved(query.transpose(0, 1), plan.order).split_with_sizes(plan.counts)
    parts, sums = [], []
    for taken, group in zip(tokens, plan.groups, strict=False):
        q = taken.view(*group.places.shape, heads, width).transpose(1, 2)  # [n, H, q, D]
        k, v = group.of(keys), group.of(values)  # [n, H_kv, L, D]
        mask = group.mask(window, query)
        if plain:
            part = _plain(q, k, v, mask, scaling)
        else:
            part, lse = _softmax_part(q, k, v, mask, scaling, softcap)
            sums.append(lse.transpose(1, 2).flatten(0, 1))
        parts.append(part.transpose(1, 2).flatten(0, 1))
    if plan.apart is not None:
        parts.append(_rows_apart(tokens[-1], keys, values, plan.apart, scaling, window))
    out = _moved(torch.cat(parts), plan.back)
    if plan.shared:
        own = _moved(torch.cat(sums), plan.back)
        for shared in plan.shared:
            _merge_shared(out, own, query, keys, values, shared, scaling, window, softcap)
    return out


def _moved(tokens: torch.Tensor, at: torch.Tensor | None) -> torch.Tensor:
    return tokens if at is None else tokens.index_select(0, at)


def _plain(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, mask: torch.Tensor | None, scaling: float
) -> torch.Tensor:
    n, heads, tokens, size = q.shape
    folded = tokens == 1  # heads of one key head as queries beside each other: many times faster
    if folded:
        q = q.reshape(n, k.shape[1], -1, size)
    part = torch.nn.functional.scaled_dot_product_attention(
        q, k, v, attn_mask=mask, scale=scaling, enable_gqa=not folded
    )
    return part.reshape(n, heads, 1, -1) if folded else part


def _rows_apart(
    tokens: torch.Tensor,
    keys: torch.Tensor,
    values: torch.Tensor,
    apart: _Apart,
    scaling: float,
    window: int | None,
) -> torch.Tensor:
    """[n, H, D] -> [n, H, D_v]: nothing is copied, masked or padded, and a window reads no more
    than itself."""
    n, heads, size = tokens.shape
    queries = tokens.reshape(n, 1, len(keys), heads // len(keys), size).unbind(0)
    keys, values = keys[None], values[None]
    parts = []
    for q, end, visible in zip(queries, apart.ends, apart.visible, strict=True):
        length = visible if window is None else min(visible, window)
        k, v = (arena.narrow(2, end - length, length) for arena in (keys, values))
        parts.append(torch.nn.functional.scaled_dot_product_attention(q, k, v, scale=scaling))
    return torch.cat(parts).view(n, heads, -1)


def _softmax_part(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    mask: torch.Tensor | None,
    scaling: float,
    softcap: float | None,
) -> Part:
    n, heads, tokens, size = q.shape
    group = heads // k.shape[1]
    # Heads that read the same keys become queries beside each other: [n, H_kv, group * q, D].
    q = q.reshape(n, k.shape[1], group * tokens, size)
    scores = (q @ k.transpose(-1, -2)).float() * scaling
    if softcap is not None:
        scores = softcap * torch.tanh(scores / softcap)
    if mask is not None:
        grouped = scores.view(n, -1, group, tokens, scores.shape[-1])
        scores = (grouped + mask[:, :, None]).flatten(2, 3)
    lse = scores.logsumexp(dim=-1, keepdim=True)
    # A token that sees nothing here has a sum of minus infinity, and weighs nothing.
    weights = (scores - lse.clamp(min=torch.finfo(lse.dtype).min)).exp().to(v.dtype)
    part = (weights @ v).reshape(n, heads, tokens, -1)
    return part, lse.reshape(n, heads, tokens)


def _merge_shared(
    out: torch.Tensor,
    sums: torch.Tensor,
    query: torch.Tensor,
    keys: torch.Tensor,
    values: torch.Tensor,
    shared: _Shared,
    scaling: float,
    window: int | None,
    softcap: float | None,
) -> None:
    """Attend to one shared beginning, and weigh it with what each token has from its own part."""
    mask = None
    if window is not None:
        hidden = shared.places[:, None] - shared.start[None] >= window
        mask = torch.zeros(hidden.shape, dtype=query.dtype, device=query.device)
        mask = mask.masked_fill_(hidden, -torch.inf)[None, None]
    part, lse = _softmax_part(
        query[None, :, shared.tokens],
        keys[None, :, shared.keys],
        values[None, :, shared.keys],
        mask,
        scaling,
        softcap,
    )
    first, own = lse[0].transpose(0, 1), sums[shared.tokens]  # [n, H]
    share = torch.sigmoid(first - own)[..., None].to(out.dtype)
    mixed = torch.lerp(out[shared.tokens], part[0].transpose(0, 1), share)
    out[shared.tokens] = mixed


# ---- once a step ------------------------------------------------------------------------------


def _plan(layout: Layout, keys: torch.Tensor, plain: bool) -> _Plan:
    device = keys.device
    sizes = np.diff(layout.blocks)
    single = layout.blocks[:-1][sizes == 1]
    long = np.zeros(len(single), dtype=np.bool_)
    if plain and device.type == "cpu":
        extras = np.diff(layout.extra_start)[single]
        long = (layout.visible[single] >= APART / keys[:, 0].nbytes) & (extras == 0)
    taken = [rows[:, None] for rows in _alike(layout, single[~long])]
    taken += [
        np.arange(layout.blocks[block], layout.blocks[block + 1])[None]
        for block in np.flatnonzero(sizes > 1)
    ]
    groups = [_group(layout, tokens, device) for tokens in taken]
    padded = sum(group.hidden.size for group in groups if group.hidden.shape[1] == 1)
    padded += int(layout.visible[single[long]].sum())
    layout.notes["keys_read"] = padded + int(layout.prefix_length[single].sum())
    apart = None
    if long.any():
        taken.append(single[long])
        apart = _apart(layout, single[long])
    order = np.concatenate([tokens.ravel() for tokens in taken])
    is_moved = bool((np.diff(order) < 0).any())
    return _Plan(
        plain=plain,
        order=torch.from_numpy(order).to(device) if is_moved else None,
        back=torch.from_numpy(np.argsort(order)).to(device) if is_moved else None,
        counts=[tokens.size for tokens in taken],
        groups=groups,
        apart=apart,
        shared=_shared(layout, device),
    )


def _apart(layout: Layout, tokens: Ints) -> _Apart:
    return _Apart(
        ends=(layout.own_start[tokens] + layout.visible[tokens]).tolist(),
        visible=layout.visible[tokens].tolist(),
    )


def _alike(layout: Layout, tokens: Ints) -> list[Ints]:
    """Cut tokens into groups of like own length, so that few padded keys are read."""
    if not len(tokens):
        return []
    lengths = layout.lengths()[tokens] - layout.prefix_length[tokens]
    order = np.argsort(lengths, kind="stable")
    lengths, tokens = lengths[order], tokens[order]
    cuts = [0, len(tokens)]
    while len(cuts) <= GROUPS:
        gain, at = max(_best_cut(lengths[a:b], a) for a, b in pairwise(cuts))
        if gain <= 0.02 * lengths.sum():
            break
        cuts = sorted([*cuts, at])
    return [tokens[a:b] for a, b in pairwise(cuts)]


def _best_cut(lengths: Ints, offset: int) -> tuple[int, int]:
    """Keys saved by the best cut of sorted lengths, and where it is."""
    if len(lengths) < 2:
        return 0, offset
    saved = np.arange(1, len(lengths)) * (lengths[-1] - lengths[:-1])
    at = int(saved.argmax())
    return int(saved[at]), offset + at + 1


def _group(layout: Layout, tokens: NDArray[np.integer], device: torch.device) -> _Group:
    """`tokens` [n, q]: n rows of q tokens each."""
    last = tokens[:, -1]
    visible = layout.visible[last]
    extras = [layout.extra[layout.extra_start[row[0]] : layout.extra_start[row[-1] + 1]]
              for row in tokens] if layout.has_extra else []  # fmt: skip
    most = max((len(np.unique(extra)) for extra in extras), default=0)
    width = int(visible.max()) + most
    columns = np.arange(width, dtype=np.int32)
    where = layout.own_start[last][:, None] + np.minimum(columns, visible[:, None] - 1)  # [n, L]
    hidden = columns >= layout.visible[tokens][..., None]  # [n, q, L]
    key_places = layout.prefix_length[last][:, None] + columns
    for index, extra in enumerate(extras):
        _add_extras(layout, tokens[index], extra, where[index], hidden[index], key_places[index])
    one = len(tokens) == 1 and not most
    start = int(layout.own_start[last[0]])
    return _Group(
        keys=slice(start, start + width)
        if one
        else torch.from_numpy(where.astype(np.int64)).to(device),
        hidden=hidden,
        places=layout.places[tokens],
        key_places=key_places,
    )


def _add_extras(
    layout: Layout,
    tokens: NDArray[np.integer],
    extra: Ints,
    where: NDArray[np.integer],
    hidden: NDArray[np.bool_],
    key_places: NDArray[np.integer],
) -> None:
    """Columns behind a row's visible keys for the single positions that its tokens see."""
    place = {int(layout.write[token]): int(layout.places[token]) for token in tokens}
    column = {int(at): int(layout.visible[tokens[0]]) + i for i, at in enumerate(np.unique(extra))}
    for at, index in column.items():
        where[index], key_places[index] = at, place.get(at, 0)
    for row, token in enumerate(tokens):
        hidden[row, int(layout.visible[token]) :] = True
        for at in layout.extra[layout.extra_start[token] : layout.extra_start[token + 1]]:
            hidden[row, column[int(at)]] = False


def _shared(layout: Layout, device: torch.device) -> list[_Shared]:
    found = []
    having = layout.prefix_length > 0
    if not having.any():
        return []
    pairs = np.stack([layout.prefix_start, layout.prefix_length], axis=1)
    for start, length in np.unique(pairs[having], axis=0):
        tokens = np.flatnonzero((pairs == (start, length)).all(axis=1))
        found.append(
            _Shared(
                tokens=torch.from_numpy(tokens).to(device),
                keys=slice(int(start), int(start + length)),
                places=torch.from_numpy(layout.places[tokens].astype(np.int64)).to(device),
                start=torch.arange(int(length), device=device),
            )
        )
    return found
