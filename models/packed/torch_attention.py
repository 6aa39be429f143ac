"""Attention over the arena in plain torch, on any device: decode rows in groups of like length,
prompts block by block. A beginning that rows share is attended to in one product for all of them,
and merged with each row's own part by log-sum-exp (FlashAttention's rule, arXiv:2205.14135)."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray

from models.packed.layout import Ints, Layout

GROUPS = 4  #: of decode rows, at most
NOTE = "torch_attention"

Part = tuple[torch.Tensor, torch.Tensor]  #: output [n, H, q, D_v] and log-sum-exp [n, H, q]


@dataclass(slots=True)
class _Group:
    """n rows of q tokens each, padded to L keys. Columns that a token does not see are masked."""

    tokens: torch.Tensor | slice  # where the n * q tokens are in the step
    rows: int
    keys: torch.Tensor | slice  # positions of the arena, [n, L], or those of one row
    hidden: NDArray[np.bool_]  # [n, q, L]
    behind: Ints  # [n, q, L]: how far the key stands behind the token
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
        return taken.view(self.rows, heads, -1, size)

    def mask(self, window: int | None, like: torch.Tensor) -> torch.Tensor | None:
        """Additive [n, 1, q, L]; None where nothing is hidden. Made once a step and window."""
        if window not in self.masks:
            hidden = self.hidden if window is None else self.hidden | (self.behind >= window)
            made = None
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
class _Plan:
    groups: list[_Group]
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
    plan = layout.notes.get(NOTE)
    if not isinstance(plan, _Plan):
        plan = layout.notes[NOTE] = _plan(layout, query.device)
    heads, size = query.shape[0], query.shape[1]
    out = query.new_empty(size, heads, values.shape[-1])
    simple = not plan.shared and softcap is None
    sums = None if simple else query.new_empty(size, heads, dtype=torch.float32)
    for group in plan.groups:
        q = _rows(query, group.tokens, group.rows)  # [n, H, q, D]
        k, v = group.of(keys), group.of(values)  # [n, H_kv, L, D]
        mask = group.mask(window, query)
        if sums is None:
            part = _plain(q, k, v, mask, scaling)
        else:
            part, lse = _softmax_part(q, k, v, mask, scaling, softcap)
            sums[group.tokens] = lse.transpose(1, 2).flatten(0, 1)
        out[group.tokens] = part.transpose(1, 2).flatten(0, 1)
    if sums is not None:
        for shared in plan.shared:
            _merge_shared(out, sums, query, keys, values, shared, scaling, window, softcap)
    return out


def _rows(packed: torch.Tensor, at: torch.Tensor | slice, rows: int) -> torch.Tensor:
    """Tokens of [H, T, D] as [n, H, q, D]."""
    taken = packed[:, at] if isinstance(at, slice) else packed.index_select(1, at)
    heads, _, size = taken.shape
    return taken.reshape(heads, rows, -1, size).transpose(0, 1)


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


def _plan(layout: Layout, device: torch.device) -> _Plan:
    sizes = np.diff(layout.blocks)
    single = layout.blocks[:-1][sizes == 1]
    groups = [_group(layout, rows[:, None], device) for rows in _alike(layout, single)]
    for start, stop in zip(layout.blocks[:-1], layout.blocks[1:], strict=True):
        if stop - start > 1:
            groups.append(_group(layout, np.arange(start, stop)[None], device))
    padded = sum(group.hidden.size for group in groups if group.hidden.shape[1] == 1)
    layout.notes["keys_read"] = padded + int(layout.prefix_length[single].sum())
    return _Plan(groups, _shared(layout, device))


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
    visible = layout.visible[last].astype(np.int64)
    extras = [layout.extra[layout.extra_start[row[0]] : layout.extra_start[row[-1] + 1]]
              for row in tokens] if layout.has_extra else []  # fmt: skip
    most = max((len(np.unique(extra)) for extra in extras), default=0)
    width = int(visible.max()) + most
    columns = np.arange(width)
    where = layout.own_start[last][:, None] + np.minimum(columns, visible[:, None] - 1)  # [n, L]
    hidden = columns >= layout.visible[tokens][..., None]  # [n, q, L]
    places = layout.places[tokens][..., None]
    behind = places - (layout.prefix_length[tokens][..., None] + columns)
    for index, extra in enumerate(extras):
        _add_extras(layout, tokens[index], extra, where[index], hidden[index], behind[index])
    one = len(tokens) == 1 and not most
    start, begin = int(layout.own_start[last[0]]), int(tokens[0, 0])
    return _Group(
        tokens=slice(begin, begin + tokens.shape[1])
        if len(tokens) == 1
        else torch.from_numpy(tokens.ravel().astype(np.int64)).to(device),
        rows=len(tokens),
        keys=slice(start, start + width)
        if one
        else torch.from_numpy(where.astype(np.int64)).to(device),
        hidden=hidden,
        behind=behind,
    )


def _add_extras(
    layout: Layout,
    tokens: NDArray[np.integer],
    extra: Ints,
    where: NDArray[np.integer],
    hidden: NDArray[np.bool_],
    behind: NDArray[np.integer],
) -> None:
    """Columns behind a row's visible keys for the single positions that its tokens see."""
    place = {int(layout.write[token]): int(layout.places[token]) for token in tokens}
    column = {int(at): int(layout.visible[tokens[0]]) + i for i, at in enumerate(np.unique(extra))}
    for at, index in column.items():
        where[index] = at
    for row, token in enumerate(tokens):
        hidden[row, int(layout.visible[token]) :] = True
        for at in layout.extra[layout.extra_start[token] : layout.extra_start[token + 1]]:
            hidden[row, column[int(at)]] = False
            behind[row, column[int(at)]] = layout.places[token] - place.get(int(at), 0)


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
