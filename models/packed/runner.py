"""One forward a step over the tokens of all rows: no padding, rows join and leave at any step.

Decides nothing: it runs the plans it is given, on regions of the arena that the caller hands out.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import torch

from models.answers import Answers
from models.codec import TokenizerCodec
from models.device import is_out_of_memory
from models.packed.layout import Layout
from models.packed.pending import Pending, combined, only, send
from models.packed.rows import Rows, Step
from models.packed.store import Store
from models.runner import FinishReason, ModelInfo, Purpose, Row, RowStep, StepOutput, StepPlan
from models.sampling import Sampled, Sampler
from models.scoring import as_scores, choice_sums
from penstock.errors import InvalidRequest, OutOfMemory


class Forward(Protocol):
    """A packed model, as it is or by graphs."""

    device: torch.device

    def forward(self, layout: Layout, store: Store) -> torch.Tensor: ...

    def likeliest(self, layout: Layout, store: Store) -> torch.Tensor | None: ...


class PackedRunner:
    """Calls of one thread. `slots`: most rows at once, prefixes included.

    `late`: a step is read when the next one is on the device already, so that the device does not
    wait for the host; output and rows that end come one call later. By default on CUDA alone. Rows
    that ended take part in one step more, and what it samples for them is dropped.
    """

    def __init__(
        self,
        model: Forward,
        store: Store,
        sampler: Sampler,
        answers: Answers,
        codec: TokenizerCodec,
        info: ModelInfo,
        slots: int,
        late: bool | None = None,
    ) -> None:
        self._model = model
        self._store = store
        self._sampler = sampler
        self._answers = answers
        self._codec = codec
        self._info = info
        self._rows = Rows(slots)
        self._last = torch.zeros(slots, dtype=torch.int64, device=model.device)
        self._late = model.device.type == "cuda" if late is None else late
        self._pending: Pending | None = None
        self._births = np.zeros(slots, dtype=np.int64)  # rows that each slot has had
        self._waits = np.zeros(slots, dtype=np.bool_)  # its next mask needs its last token

    @property
    def info(self) -> ModelInfo:
        return self._info

    @property
    def codec(self) -> TokenizerCodec:
        return self._codec

    def step(self, plan: StepPlan) -> StepOutput:
        try:
            with torch.inference_mode():
                return self._step(plan)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
        # Out here the failed step's tensors are no longer held by the error's traceback.
        if self._model.device.type == "cuda":
            torch.cuda.empty_cache()
        raise OutOfMemory

    def forget(self, micro_batch: int) -> None:
        """Free every row."""
        self._pending = None
        self._release(self._rows.all())

    def _step(self, plan: StepPlan) -> StepOutput:
        # 1. Who leaves and who comes.
        gone = [self._rows.slot(id) for id in plan.drop]
        self._release([slot for slot in gone if slot is not None])
        refused: list[RowStep] = []
        for row, place in zip(plan.admit, plan.places, strict=True):
            if place.copy is not None:
                self._store.copy(place.copy, place.own.start)
            refused += self._admit(row, self._rows.admit(row, place))
        # 2. One forward of all their tokens.
        step = self._rows.step(plan, self._last)
        before, self._pending = self._pending, None
        now = self._launch(step) if step.layout.size else None
        # 3. What the step before says of each row, or this one.
        if self._late and now is not None and not self._waits[step.sampling].any():
            self._pending, now = now, None
        read = [self._read(sent) for sent in (before, now) if sent is not None]
        read.append(StepOutput(rows=tuple(refused)))
        return combined(read, pending=self._pending is not None)

    # ---- rows -----------------------------------------------------------------------------

    def _admit(self, row: Row, slot: int) -> list[RowStep]:
        """Why a row cannot run, if so."""
        if row.purpose is not Purpose.GENERATE:
            return []
        limit = max(1, min(row.sampling.max_tokens, self._info.context - len(row.prompt)))
        try:
            self._sampler.admit(slot, row, limit)
        except InvalidRequest as error:
            self._release([slot])
            return [RowStep(row.id, error.message, FinishReason.ERROR)]
        self._answers.admit(slot, row, limit)
        self._waits[slot] = row.sampling.constraint is not None
        return []

    def _release(self, slots: Sequence[int]) -> None:
        for slot in slots:
            self._rows.release(slot)
            self._births[slot] += 1
            self._waits[slot] = False
        self._sampler.release(slots)
        self._answers.release(slots)

    # ---- on the device: nothing here waits for it -----------------------------------------

    def _launch(self, step: Step) -> Pending:
        likeliest = self._likeliest(step)
        if likeliest is not None:
            return send(step, self._births, likeliest, [])
        logits = self._model.forward(step.layout, self._store)  # [N, V]
        sampled = self._sample(step, logits) if len(step.sampling) else None
        sums = [
            choice_sums(logits[one.first : one.first + 1 + len(one.tree.tokens)], one.tree)
            for one in step.scored
        ]
        return send(step, self._births, sampled, sums)

    def _likeliest(self, step: Step) -> Sampled | None:
        """A step without logits, where nobody wants them and the model can do without."""
        if step.scored or not len(step.sampling):
            return None
        if not self._sampler.wants_likeliest(step.sampling):
            return None
        tokens = self._model.likeliest(step.layout, self._store)
        if tokens is None:
            return None
        slots = self._slots(step)
        self._last[slots] = tokens
        return self._sampler.take(tokens, slots, step.sampling)

    def _sample(self, step: Step, logits: torch.Tensor) -> Sampled:
        if len(step.at) != len(logits):
            at = torch.from_numpy(step.at).to(logits.device, non_blocking=True)
            logits = logits[at]
        slots = self._slots(step)
        sampled = self._sampler.choose(logits, slots, step.sampling)
        self._last[slots] = sampled.tokens
        return sampled

    def _slots(self, step: Step) -> torch.Tensor:
        return torch.from_numpy(step.sampling).to(self._model.device, non_blocking=True)

    # ---- on the host ----------------------------------------------------------------------

    def _read(self, sent: Pending) -> StepOutput:
        sent.wait()
        step = sent.step
        kept = sent.kept(step.sampling, self._births)
        started = [
            id for id, here in zip(step.started, kept[len(step.decoding) :], strict=True) if here
        ]
        rows: list[RowStep] = []
        if sent.sampled is not None:
            slots = torch.from_numpy(step.sampling[kept])
            rows, over = self._answers.collect(slots, only(sent.sampled, kept))
            self._release(over)
        scored = self._scored(sent)
        layout = step.layout
        needed = int(layout.lengths()[: len(step.decoding)].sum())
        keys_read: Any = layout.notes.get("keys_read", needed)
        tokens_read: Any = layout.notes.get("tokens_read", layout.size)
        return StepOutput(
            rows=(*rows, *scored, *self._prefixes(sent)),
            started=(*started, *(one.id for one in scored)),
            sampled=int(kept.sum()),
            tokens_read=tokens_read,
            tokens_needed=layout.size,
            keys_read=keys_read,
            keys_needed=needed,
        )

    def _scored(self, sent: Pending) -> list[RowStep]:
        scored = sent.step.scored
        kept = sent.kept([one.slot for one in scored], self._births)
        found = [
            RowStep(one.id, finish=FinishReason.STOP, scores=as_scores(sums))
            for one, sums, here in zip(scored, sent.sums, kept, strict=True)
            if here
        ]
        self._release([one.slot for one, here in zip(scored, kept, strict=True) if here])
        return found

    def _prefixes(self, sent: Pending) -> list[RowStep]:
        """Prefixes that were read whole."""
        read = np.array(sent.step.read, dtype=np.int64)
        slots: list[int] = read[sent.kept(read, self._births)].tolist()
        ended = [RowStep(self._rows.row(slot).id, finish=FinishReason.STOP) for slot in slots]
        self._release(slots)
        return ended
