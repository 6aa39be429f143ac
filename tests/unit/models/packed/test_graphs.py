"""Recorded steps, with a capture that runs again what it was given: padded to their bucket and run
on fixed tensors, they give the logits of the step as it is."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from models.packed.graphs import BUCKETS, DECODE_BUCKETS, PREFIXES, Graphs, bucket
from models.packed.layout import Layout
from models.packed.model import PackedModel
from models.packed.store import Store
from models.packed.torch_attention import attend
from models.packed.varlen import VarlenAttend
from tests.unit.models.families import model
from tests.unit.models.packed.kernels import reference
from tests.unit.models.packed.layouts import ARENA, steps
from tests.unit.models.packed.layouts import PREFIXES as SHARED
from tests.unit.models.tiny import CONTEXT

CPU = torch.device("cpu")


class Recorder:
    """A kernel and a capture. What is run again must call the kernel with the very same numbers
    and with tensors at the same addresses: a graph has nothing else."""

    def __init__(self) -> None:
        self.captured = 0
        self.replayed = 0
        self._calls: list[object] = []

    def kernel(self, *args: Any, **named: Any) -> Any:
        fixed = [args[at].data_ptr() for at in (1, 2, 3, 4)] if args[1].shape[0] > ARENA else []
        shapes = tuple(args[0].shape), tuple(args[3].shape)
        fixed.append(named["seqused_k"].data_ptr())
        self._calls.append((fixed, shapes, args[5:], named["window_size"], named["scale"]))
        return reference(*args, **named)

    def capture(self, run: Callable[[], None]) -> Callable[[], None]:
        self.captured += 1
        self._calls = []
        run()
        wanted = self._calls

        def replay() -> None:
            self.replayed += 1
            self._calls = []
            run()
            assert self._calls == wanted

        return replay


class Pair:
    """A model by graphs beside the same model as it is, each with its arena. Positions that nobody
    wrote hold no numbers."""

    def __init__(self, family: str) -> None:
        made = model(family)
        self.recorder = Recorder()
        varlen = VarlenAttend(self.recorder.kernel, [torch.float32])
        self.packed = PackedModel(made, varlen)
        self.graphs = Graphs(self.packed, varlen, ARENA, CONTEXT, self.recorder.capture)
        self.plain = PackedModel(made, attend)
        self.stores = [Store(self.plain.layers, ARENA + 1, CPU) for _ in range(2)]
        for tensors in zip(*((*store.keys, *store.values) for store in self.stores), strict=True):
            tensors[0].fill_(torch.nan)
            tensors[0][:, : SHARED[-1].end].normal_()
            tensors[1].copy_(tensors[0])

    @torch.inference_mode()
    def compare(self, layout: Layout) -> None:
        found = self.graphs.forward(layout, self.stores[0]).clone()
        wanted = self.plain.forward(layout, self.stores[1])
        torch.testing.assert_close(found, wanted, atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize(
    "family", ["llama", "qwen3", "mistral", "gemma3", "gpt2", "gpt_neox", "mixtral"]
)
def test_recorded_steps_give_the_logits_of_steps_as_they_are(family: str) -> None:
    pair = Pair(family)
    for layout in (layout for seed in range(3) for layout in steps(seed)):
        pair.compare(layout)
    assert 0 < pair.recorder.captured < pair.recorder.replayed / 2


def test_a_model_that_the_kernel_cannot_run_is_never_recorded() -> None:
    pair = Pair("gemma2")
    for layout in steps(0):
        pair.compare(layout)
        assert "tokens_read" not in layout.notes
    assert pair.recorder.captured == 0


def test_a_capture_that_fails_leaves_steps_as_they_are() -> None:
    pair = Pair("llama")

    def fails(run: Callable[[], None]) -> Callable[[], None]:
        raise RuntimeError("operation not permitted when stream is capturing")

    varlen = VarlenAttend(reference, [torch.float32])
    pair.graphs = Graphs(PackedModel(model("llama"), varlen), varlen, ARENA, CONTEXT, fails)
    for layout in steps(0):
        pair.compare(layout)


def test_a_recording_that_differs_from_its_step_is_not_used() -> None:
    pair = Pair("llama")
    varlen = VarlenAttend(reference, [torch.float32])
    idle = Graphs(PackedModel(model("llama"), varlen), varlen, ARENA, CONTEXT, lambda run: _nothing)
    pair.graphs = idle
    for layout in steps(0):
        pair.compare(layout)


def test_dummies_write_to_the_scratch_position_alone() -> None:
    pair = Pair("llama")
    written = torch.zeros(ARENA + 1, dtype=torch.bool)
    written[: SHARED[-1].end] = True
    for layout in steps(0, scored=False):
        pair.compare(layout)
        written[layout.write] = True
    keys = pair.stores[0].keys[0]
    assert torch.equal(~keys.isnan().all(dim=-1).all(dim=0)[:ARENA], written[:ARENA])
    assert not keys[:, ARENA].isnan().any()


def test_the_bucket_is_the_smallest_that_holds_a_step() -> None:
    assert [_decode(rows) for rows in (1, 3, 33, 512)] == [1, 4, 64, 512]
    assert _decode(513) is None
    assert set(DECODE_BUCKETS) > set(BUCKETS)
    prompt = bucket(Layout.plain([0] * 65, CPU), CONTEXT)
    assert prompt is not None and (prompt.tokens, prompt.singles, prompt.prefixes) == (128, 32, 0)
    assert bucket(Layout.plain([0] * 513, CPU), CONTEXT) is None


def test_many_short_prompts_take_a_larger_bucket_or_none() -> None:
    def prompts(count: int) -> int | None:
        layout = Layout.plain([0] * 2 * count, CPU)
        layout.blocks = np.arange(count + 1, dtype=np.int32) * 2
        sizes = bucket(layout, CONTEXT)
        return sizes.tokens if sizes else None

    assert [prompts(count) for count in (7, 8, 31, 32, 63, 64)] == [64, 128, 256, 512, 512, None]


def test_steps_with_branches_or_many_beginnings_have_no_graph() -> None:
    assert all(
        (bucket(layout, CONTEXT) is None) == layout.has_extra
        for seed in range(3)
        for layout in steps(seed)
    )
    layout = _rows(PREFIXES + 1)
    layout.prefix_start = np.arange(PREFIXES + 1, dtype=np.int32)
    layout.prefix_length = layout.prefix_length + np.int32(1)
    assert bucket(layout, CONTEXT) is None


def _rows(count: int) -> Layout:
    """Rows that decode."""
    layout = Layout.plain([0] * count, CPU)
    layout.blocks = np.arange(count + 1, dtype=np.int32)
    return layout


def _decode(rows: int) -> int | None:
    sizes = bucket(_rows(rows), CONTEXT)
    return sizes.tokens if sizes else None


def _nothing() -> None: ...
