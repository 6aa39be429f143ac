"""Packed forwards as CUDA graphs, one for each size of step, recorded when it first comes up.

A recorded step has its inputs at fixed addresses and fixed sizes: tokens that are missing are
dummies, which see nothing and write to one position of the arena that no row owns. Steps with
branches of scored rows, with more prefixes than PREFIXES or more tokens than the largest bucket
have no graph: they run as they are. Knows no rows.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch

from models.packed.layout import Layout
from models.packed.model import PackedModel
from models.packed.store import Store
from models.packed.varlen import VarlenAttend
from models.packed.varlen_plan import Sizes, outline
from penstock.telemetry import get_logger

log = get_logger(__name__)

BUCKETS = (64, 128, 256, 512)  #: tokens of a step that reads prompts
DECODE_BUCKETS = (1, 2, 4, 8, 16, 32, *BUCKETS)  #: tokens of a step that does not
FEWEST_KEPT = 32  #: logits and single tokens of a step that reads prompts: the smallest bucket
PREFIXES = 8
BLOCK = 8  #: tokens of a bucket for each block of a prompt that it has room for

Capture = Callable[[Callable[[], None]], Callable[[], None]]


@dataclass(frozen=True, slots=True)
class _Graph:
    layout: Layout
    logits: torch.Tensor  # where it leaves them
    replay: Callable[[], None]


class Graphs:
    """Runs packed forwards like a `PackedModel`. Not for two threads.

    `scratch` is a position of the arena that no row owns, `longest` the most keys of a row.
    `capture` takes what a step does and returns what does it again.
    """

    def __init__(
        self,
        model: PackedModel,
        attend: VarlenAttend,
        scratch: int,
        longest: int,
        capture: Capture | None = None,
    ) -> None:
        self.device = model.device
        self._model = model
        self._attend = attend
        self._longest = longest
        self._capture = capture or CudaCapture()
        self._graphs: dict[Sizes, _Graph] = {}
        self._off = False
        self._tokens, self._positions, self._keep = torch.zeros(
            3, BUCKETS[-1], dtype=torch.int64, device=self.device
        )
        self._write = torch.full_like(self._tokens, scratch)
        self._scratch = scratch
        self._logits: torch.Tensor | None = None  # of the largest step, for all graphs

    def forward(self, layout: Layout, store: Store) -> torch.Tensor:
        """Logits [N, V] of the tokens in `layout.keep`, until the next forward."""
        sizes = None if self._off else bucket(layout, self._longest)
        if sizes is None:
            return self._model.forward(layout, store)
        layout.notes["tokens_read"] = sizes.tokens
        self._fill(layout, sizes.tokens)
        graph = self._graphs.get(sizes)
        if graph is None:
            return self._record(layout, store, sizes)
        self._attend.refill(graph.layout, layout)
        graph.replay()
        return graph.logits[: len(layout.keep)]

    def likeliest(self, layout: Layout, store: Store) -> None:
        """A recorded step makes logits."""

    def _fill(self, layout: Layout, tokens: int) -> None:
        """Put a step's numbers where graphs read them. Dummies keep whatever token is there."""
        size = layout.size
        self._tokens[:size].copy_(layout.tokens)
        self._positions[:size].copy_(layout.positions)
        self._write[:size].copy_(layout.write)
        self._write[size:tokens].fill_(self._scratch)
        self._keep[: len(layout.keep)].copy_(layout.keep)
        self._keep[len(layout.keep) :].fill_(0)

    def _record(self, layout: Layout, store: Store, sizes: Sizes) -> torch.Tensor:
        """Run a step of new sizes, and record it."""
        static = replace(
            layout,
            tokens=self._tokens[: sizes.tokens],
            positions=self._positions[: sizes.tokens],
            write=self._write[: sizes.tokens],
            keep=self._keep[: sizes.singles],
            notes={},
        )
        self._attend.prepare(static, sizes)
        # Makes what a capture must not make: plans, workspaces, compiled kernels.
        logits = self._model.forward(static, store)
        if self._attend.has_left(static):
            self._stop("its attention needs plain torch")
            layout.notes.pop("tokens_read")
            return self._model.forward(layout, store)
        if self._logits is None:
            self._logits = logits.new_empty(DECODE_BUCKETS[-1], logits.shape[-1])
        space = self._logits[: sizes.singles]

        def run() -> None:
            space.copy_(self._model.forward(static, store))

        try:
            graph = _Graph(static, space, self._capture(run))
            graph.replay()
        except RuntimeError as error:
            self._stop(str(error).splitlines()[0])
            return logits[: len(layout.keep)]
        # The same kernels on the same numbers.
        if torch.allclose(space, logits, atol=0.05 * float(logits.abs().max()), rtol=0):
            self._graphs[sizes] = graph
        else:
            self._stop("a recorded step gives other logits")
        return logits[: len(layout.keep)]

    def _stop(self, reason: str) -> None:
        log.warning("graphs.not_used", reason=reason)
        self._off = True
        self._graphs.clear()


class CudaCapture:
    """Graphs of one pool of memory: they never run at the same time."""

    def __init__(self) -> None:
        self._pool = torch.cuda.graph_pool_handle()

    def __call__(self, run: Callable[[], None]) -> Callable[[], None]:
        graph = torch.cuda.CUDAGraph()
        # Other threads may use the device meanwhile.
        with torch.cuda.graph(graph, pool=self._pool, capture_error_mode="thread_local"):
            run()
        return graph.replay


def bucket(layout: Layout, longest: int) -> Sizes | None:
    """The sizes of the graph that runs this step; None: there is none for it."""
    step = outline(layout)
    prefixes = PREFIXES + 1 if len(step.prefixes) else 0
    if layout.has_extra or len(step.prefixes) > PREFIXES or layout.size > BUCKETS[-1]:
        return None
    kept = max(len(step.singles), len(layout.keep))
    if len(step.singles) == layout.size:
        tokens = next(size for size in DECODE_BUCKETS if size >= kept)
        return Sizes(tokens, tokens, 0, prefixes, longest)
    kept = next(size for size in (FEWEST_KEPT, *BUCKETS) if size >= kept)
    for tokens in BUCKETS:
        blocks = tokens // BLOCK
        # One more than its blocks: the run of dummies behind them.
        if tokens >= layout.size and blocks > len(step.real):
            return Sizes(tokens, kept, blocks, prefixes, longest)
    return None
