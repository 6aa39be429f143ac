"""A packed runner of a tiny model, and the least of a scheduler to drive it: rows come when a slot
is free, leave when they are told to, and whatever they say is checked as it is heard."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, pre_tokenizers
from tokenizers.models import BPE
from transformers import PreTrainedTokenizerFast

from models.answers import Answers
from models.codec import TokenizerCodec
from models.grammar import Grammars
from models.packed.graphs import Graphs
from models.packed.layout import Layout
from models.packed.model import PackedModel
from models.packed.runner import Forward, PackedRunner
from models.packed.store import Store
from models.packed.torch_attention import attend
from models.packed.varlen import VarlenAttend
from models.runner import (
    Chunk,
    FinishReason,
    ModelInfo,
    Place,
    Purpose,
    Region,
    Row,
    StepOutput,
    StepPlan,
    TokenLogprob,
)
from models.sampling import Sampler
from tests.unit.models.families import model
from tests.unit.models.packed.kernels import reference
from tests.unit.models.tiny import CONTEXT, ENDS, VOCABULARY

SLOTS = 4
BUDGET = 24  #: tokens of prompts in a step
CPU = torch.device("cpu")


def tokenizer() -> PreTrainedTokenizerFast:
    """One byte for each token, so that texts have parts to stop at and answers can be
    constrained."""
    bytes_ = iter(sorted(pre_tokenizers.ByteLevel.alphabet()))
    words = {}
    for number in range(VOCABULARY):
        special = number < 2 or number in ENDS
        words[f"<{number}>" if special else next(bytes_)] = number
    inner = Tokenizer(BPE(words, []))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    inner.add_special_tokens([word for word in words if len(word) > 1])
    fast: Any = PreTrainedTokenizerFast
    made: PreTrainedTokenizerFast = fast(
        tokenizer_object=inner, bos_token="<1>", eos_token="<7>", model_max_length=CONTEXT
    )
    return made


class Device:
    """Runs steps while it has memory: for `steps` more, or for all."""

    def __init__(self, inner: Forward) -> None:
        self.device = CPU
        self._inner = inner
        self.steps: int | None = None

    def likeliest(self, layout: Layout, store: Store) -> torch.Tensor | None:
        return None

    def forward(self, layout: Layout, store: Store) -> torch.Tensor:
        if self.steps is not None:
            self.steps -= 1
            if self.steps < 0:
                raise torch.OutOfMemoryError
        return self._inner.forward(layout, store)


def runner(
    family: str,
    *,
    late: bool,
    graphs: bool = False,
    wrap: Callable[[Forward], Forward] = lambda inner: inner,
) -> PackedRunner:
    varlen = VarlenAttend(reference, [torch.float32])
    packed = PackedModel(model(family), varlen if graphs else attend)
    positions, ends = (SLOTS + 1) * CONTEXT, frozenset(ENDS)
    forward: Forward = packed
    if graphs:
        forward = Graphs(packed, varlen, positions, CONTEXT, lambda run: run)
    return PackedRunner(
        wrap(forward),
        Store(packed.layers, positions + 1, CPU),
        Sampler(SLOTS, VOCABULARY, CPU, ends, Grammars(tokenizer(), VOCABULARY, ends)),
        Answers(SLOTS, tokenizer(), ends),
        TokenizerCodec(tokenizer()),
        ModelInfo("tiny", 0, 0, "cpu", "fp32", CONTEXT, "packed", kv_tokens=positions),
        SLOTS,
        late,
    )


@dataclass(slots=True)
class Heard:
    """All that one row said."""

    text: str = ""
    finish: FinishReason | None = None
    tokens: int = 0
    logprobs: tuple[TokenLogprob, ...] = ()
    scores: tuple[float, ...] = ()
    started: int = 0


@dataclass(slots=True)
class Desk:
    """The last region of the arena is for a shared beginning, the others for one row each."""

    runner: PackedRunner
    heard: dict[str, Heard] = field(default_factory=dict)
    prefix: Region | None = None
    #: Rows that leave once this many steps have run since they came.
    cancel: dict[str, int] = field(default_factory=dict)
    outputs: list[StepOutput] = field(default_factory=list)
    _homes: dict[str, int] = field(default_factory=dict)
    _left: dict[str, int] = field(default_factory=dict)

    def run(self, rows: Sequence[Row]) -> dict[str, Heard]:
        waiting = list(rows)
        while waiting or self._homes or self.outputs[-1].pending:
            new: list[Row] = []
            while waiting and len(self._homes) + len(new) < SLOTS:
                new.append(waiting.pop(0))
                self.heard[new[-1].id] = Heard()
            self.step(tuple(new))
        return self.heard

    def step(self, new: tuple[Row, ...] = ()) -> StepOutput:
        drop = tuple(id for id in self._homes if self.cancel.get(id) == 0)
        for id in drop:
            self._leave(id)
        for id in self._homes:
            if id in self.cancel:
                self.cancel[id] -= 1
        places = tuple(self._place(row) for row in new)
        output = self.runner.step(StepPlan(new, places, self._chunks(), drop))
        self.outputs.append(output)
        self._listen(output)
        return output

    def _listen(self, output: StepOutput) -> None:
        assert len({said.id for said in output.rows}) == len(output.rows)
        for id in output.started:
            assert id in self._homes
            self.heard[id].started += 1
        for said in output.rows:
            assert said.id in self._homes, "a row that is gone says something"
            mine = self.heard[said.id]
            mine.text += said.text
            if said.finish is not None:
                mine.finish, mine.tokens = said.finish, said.tokens
                mine.logprobs, mine.scores = said.logprobs, said.scores
                self._leave(said.id)

    def _place(self, row: Row) -> Place:
        is_prefix = row.purpose is Purpose.PREFIX
        taken = self._homes.values()
        home = SLOTS if is_prefix else next(at for at in range(SLOTS) if at not in taken)
        self._homes[row.id] = home
        own = Region(home * CONTEXT, CONTEXT)
        if is_prefix:
            self._left[row.id] = len(row.prompt)
            self.prefix = Region(own.start, len(row.prompt))
            return Place(own)
        shares = self.prefix is not None and row.id.endswith("shares")
        place = Place(own, self.prefix if shares else None)
        self._left[row.id] = len(row.prompt) - place.known
        return place

    def _chunks(self) -> tuple[Chunk, ...]:
        chunks, budget = [], BUDGET
        for id, left in self._left.items():
            tokens = min(left, budget)
            if tokens:
                chunks.append(Chunk(id, tokens))
                self._left[id] -= tokens
                budget -= tokens
        return tuple(chunks)

    def _leave(self, id: str) -> None:
        del self._homes[id], self._left[id]
