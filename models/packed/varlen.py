"""Attention over the arena by a kernel of variable-length attention: torch's own on CUDA.

A row's region is a start and a number of keys; a shared beginning and the branches of a scored row
are further calls, merged by log-sum-exp (arXiv:2205.14135). What the kernel cannot do goes to plain
torch. No tensor is read by the host, so that a step can be captured as a graph.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Protocol

import torch
from torch.nn.attention.varlen import AuxRequest, varlen_attn

from models.packed import torch_attention
from models.packed.layout import Layout
from models.packed.varlen_plan import Call, Plan, Sizes, make, outline
from penstock.telemetry import get_logger

log = get_logger(__name__)

NOTE = "varlen"
HALVES = (torch.float16, torch.bfloat16)
LARGEST_HEAD = 256
ALL = (-1, -1)  #: a window of all keys
#: The log-sum-exp of a token that sees nothing. Finite: two of them have a difference.
NOTHING = -1e30

Part = tuple[torch.Tensor, torch.Tensor]  #: output [q, H, D] and log-sum-exp [H, q]


class Kernel(Protocol):
    """`torch.nn.attention.varlen.varlen_attn`, as far as it is used here."""

    def __call__(
        self,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        cu_seq_q: torch.Tensor,
        cu_seq_k: torch.Tensor | None,
        max_q: int,
        max_k: int,
        *,
        return_aux: AuxRequest | None,
        scale: float | None,
        window_size: tuple[int, int],
        enable_gqa: bool,
        seqused_k: torch.Tensor | None,
    ) -> torch.Tensor | tuple[torch.Tensor, torch.Tensor]: ...


class _Notes:
    """A step's plans by window. `outside`: some layer could not be done by the kernel."""

    def __init__(self, layout: Layout, sizes: Sizes | None, device: torch.device) -> None:
        self.outline = outline(layout)
        self.sizes = sizes or self.outline.sizes(layout)
        self.plans: dict[int | None, Plan] = {}
        self.outside = False
        self._device = device

    def plan(self, layout: Layout, window: int | None) -> Plan:
        if window not in self.plans:
            plan = make(layout, self.outline, self.sizes, window)
            self.plans[window] = plan.to(self._device)
        return self.plans[window]


class VarlenAttend:
    """An `Attend`. `dtypes`: those that the kernel takes."""

    def __init__(
        self, kernel: Kernel = varlen_attn, dtypes: Collection[torch.dtype] = HALVES
    ) -> None:
        self._kernel = kernel
        self._dtypes = frozenset(dtypes)

    def __call__(
        self,
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
        notes = _notes(layout, query.device)
        if softcap is not None or not self._takes(query, values):
            notes.outside = True
            real = query[:, : layout.size]  # behind them are the dummies of a recorded step
            out = torch_attention.attend(
                real, keys, values, layout, scaling=scaling, window=window, softcap=softcap
            )
            dummies = query.shape[1] - layout.size
            return torch.nn.functional.pad(out, (0, 0, 0, 0, 0, dummies))
        plan = notes.plan(layout, window)
        q = query.transpose(0, 1)  # [T, H, D]
        k, v = keys.transpose(0, 1), values.transpose(0, 1)  # [P, H_kv, D], nothing is copied
        out, sums = self._own(q, k, v, plan, scaling, window)
        if plan.prefix is not None:
            part = self._call(q, k, v, plan.prefix, scaling)
            if plan.prefix.back is not None:
                part = part[0][plan.prefix.back], part[1][:, plan.prefix.back]
            out, sums = _merge((out, sums), part)
        if plan.extras is not None:
            at = plan.extras.at
            part = self._call(q, k, v, plan.extras, scaling)
            out[at] = _merge((out[at], sums[:, at]), part)[0]
        return out

    def prepare(self, static: Layout, sizes: Sizes) -> None:
        """Run `static` with arrays of these sizes from now on."""
        static.notes[NOTE] = _Notes(static, sizes, static.tokens.device)

    def refill(self, static: Layout, layout: Layout) -> None:
        """Give a prepared layout, where its arrays are, the numbers of another step."""
        notes, step = _notes(static, static.tokens.device), outline(layout)
        for window, plan in notes.plans.items():
            plan.refill(make(layout, step, notes.sizes, window))

    def has_left(self, layout: Layout) -> bool:
        """Whether a layer of this step went to plain torch."""
        return _notes(layout, layout.tokens.device).outside

    def _takes(self, query: torch.Tensor, values: torch.Tensor) -> bool:
        size = query.shape[-1]
        fits = size % 8 == 0 and size <= LARGEST_HEAD and size == values.shape[-1]
        return fits and query.dtype in self._dtypes and values.dtype == query.dtype

    def _own(
        self,
        q: torch.Tensor,
        k: torch.Tensor,
        v: torch.Tensor,
        plan: Plan,
        scaling: float,
        window: int | None,
    ) -> Part:
        """Attention of all tokens to keys of their own rows."""
        causal = (-1 if window is None else window - 1, 0)
        band = causal if plan.own.most_queries > 1 else ALL
        out, sums = self._call(q, k, v, plan.own, scaling, band)
        if plan.singles is not None:
            at = plan.singles.at
            out[at], sums[:, at] = self._call(q, k, v, plan.singles, scaling)
        return out, sums

    def _call(
        self,
        q: torch.Tensor,
        k: torch.Tensor,
        v: torch.Tensor,
        call: Call,
        scaling: float,
        window: tuple[int, int] = ALL,
    ) -> Part:
        if call.at is not None:
            q = q[call.at]
        if call.gathered is not None:
            k, v = k[call.gathered], v[call.gathered]
        out, sums = self._kernel(
            q,
            k,
            v,
            call.queries,
            call.keys,
            call.most_queries,
            call.most_keys,
            return_aux=AuxRequest(lse=True),
            scale=scaling,
            window_size=window,
            enable_gqa=q.shape[1] != k.shape[1],
            seqused_k=call.used,
        )
        # Plus infinity is what it says of a query without keys.
        return out, sums.nan_to_num(nan=NOTHING, posinf=NOTHING, neginf=NOTHING)


def load(
    device: torch.device, dtype: torch.dtype, attend: VarlenAttend | None = None
) -> VarlenAttend | None:
    """The kernel, if it gives on this device what plain torch gives; else None."""
    attend = attend or VarlenAttend()
    try:
        agrees = _agrees(attend, device, dtype)
    except (RuntimeError, ValueError, NotImplementedError) as error:
        log.warning("varlen.not_used", reason=str(error).splitlines()[:1])
        return None
    if not agrees:
        log.warning("varlen.not_used", reason="its results differ from plain torch's")
    return attend if agrees else None


def _agrees(attend: VarlenAttend, device: torch.device, dtype: torch.dtype) -> bool:
    """On rows that decode, out of order in the arena, beside a prompt; all with a common prefix,
    with a window and without."""
    generator = torch.Generator().manual_seed(0)
    shapes = ((4, 12, 64), (2, 512, 64), (2, 512, 64))
    query, keys, values = (
        torch.randn(shape, generator=generator).to(device, dtype) for shape in shapes
    )
    layout = _example(device)
    for window in (None, 40):
        found = attend(query, keys, values, layout, scaling=0.125, window=window)
        wanted = torch_attention.attend(query, keys, values, layout, scaling=0.125, window=window)
        if not torch.allclose(found.float(), wanted.float(), atol=2e-2, rtol=2e-2):
            return False
    return not attend.has_left(layout)


def _example(device: torch.device) -> Layout:
    layout = Layout.plain([0] * 12, device)
    layout.blocks = layout.blocks[[0, 0, 0, 1]]
    layout.blocks[1:3] = 1, 2
    layout.own_start[:] = [300, 200, *[400] * 10]
    layout.visible[:] = [70, 1, *range(1, 11)]
    layout.prefix_start = layout.prefix_start + 10
    layout.prefix_length = layout.prefix_length + 100
    layout.places[:] = layout.visible + 99
    return layout


def _notes(layout: Layout, device: torch.device) -> _Notes:
    notes = layout.notes.get(NOTE)
    if not isinstance(notes, _Notes):
        notes = layout.notes[NOTE] = _Notes(layout, None, device)
    return notes


def _merge(one: Part, other: Part) -> Part:
    """Attention to both sets of keys, of the attention to each."""
    share = torch.sigmoid(other[1] - one[1]).transpose(0, 1)[..., None]  # [q, H, 1]
    out = torch.lerp(one[0], other[0], share.to(one[0].dtype))
    return out, torch.logaddexp(one[1], other[1])
