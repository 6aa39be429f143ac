"""`varlen_attn` in plain torch, with everything that the real one demands of its caller checked."""

from __future__ import annotations

import torch
from torch.nn.attention.varlen import AuxRequest


def reference(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    cu_seq_q: torch.Tensor,
    cu_seq_k: torch.Tensor | None,
    max_q: int,
    max_k: int,
    *,
    return_aux: AuxRequest | None = None,
    scale: float | None = None,
    window_size: tuple[int, int] = (-1, -1),
    enable_gqa: bool = False,
    seqused_k: torch.Tensor | None = None,
) -> torch.Tensor | tuple[torch.Tensor, torch.Tensor]:
    assert cu_seq_k is not None and seqused_k is not None
    check_layout(query, key, value, cu_seq_q, cu_seq_k, seqused_k, enable_gqa)
    starts, ends = cu_seq_q[:-1].tolist(), cu_seq_q[1:].tolist()
    lengths = [end - start for start, end in zip(starts, ends, strict=True)]
    assert starts[0] == 0 and ends[-1] == len(query) and min(lengths) >= 0
    assert max(lengths) <= max_q and int(seqused_k.max()) <= max_k
    if max_q == 1:  # flash attention folds heads into such queries, and counts on one each
        assert set(lengths) == {1}
    out = torch.zeros_like(query)
    sums = torch.full((query.shape[1], len(query)), torch.inf, dtype=torch.float32)
    for start, end, first, used in zip(
        starts, ends, cu_seq_k.tolist(), seqused_k.tolist(), strict=False
    ):
        assert first >= 0 and first + used <= len(key)
        if used and end > start:
            rows, keys = slice(start, end), slice(first, first + used)
            part = _one(query[rows], key[keys], value[keys], scale, window_size)
            out[rows], sums[:, rows] = part
    return (out, sums) if return_aux is not None and return_aux.lse else out


def check_layout(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    cu_seq_q: torch.Tensor,
    cu_seq_k: torch.Tensor,
    seqused_k: torch.Tensor,
    enable_gqa: bool,
) -> None:
    for tensor in (query, key, value):
        assert tensor.dim() == 3 and tensor.stride(-1) == 1 and tensor.dtype == query.dtype
    assert key.shape == value.shape and key.shape[-1] == query.shape[-1]
    assert query.shape[-1] % 8 == 0 and query.shape[-1] <= 256
    assert query.shape[1] % key.shape[1] == 0
    assert enable_gqa or query.shape[1] == key.shape[1]
    for tensor in (cu_seq_q, cu_seq_k, seqused_k):
        assert tensor.dtype == torch.int32 and tensor.is_contiguous()
    assert len(cu_seq_q) == len(cu_seq_k) == len(seqused_k) + 1


def _one(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    scale: float | None,
    window: tuple[int, int],
) -> tuple[torch.Tensor, torch.Tensor]:
    """One sequence, [q, H, D] on [k, H_kv, D]; query and key are aligned at their ends."""
    group = q.shape[1] // k.shape[1]
    k, v = k.repeat_interleave(group, dim=1).float(), v.repeat_interleave(group, dim=1).float()
    scores = torch.einsum("qhd,khd->hqk", q.float(), k) * (scale or q.shape[-1] ** -0.5)
    behind = torch.arange(len(q))[:, None] + len(k) - len(q) - torch.arange(len(k))
    left, right = window
    if left >= 0:
        scores = scores.masked_fill(behind > left, -torch.inf)
    if right >= 0:
        scores = scores.masked_fill(behind < -right, -torch.inf)
    sums = scores.logsumexp(dim=-1)
    out = torch.einsum("hqk,khd->qhd", (scores - sums[..., None]).exp(), v)
    return out.to(q.dtype), sums
