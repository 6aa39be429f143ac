"""The probe's packed steps: a few fixed rows that meet in every way that rows can. Knows neither
what their logits should be nor how near they must come."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch

from models.choices import ChoiceTree, choice_tree
from models.packed.model import PackedModel
from models.packed.rows import Rows, Step
from models.packed.store import Store
from models.runner import Chunk, Place, Purpose, Region, Row, SamplingParams, StepPlan

Tokens = tuple[int, ...]

SHARED, ANSWER = 11, 3  #: tokens: of the beginning that two rows share, of each answer
PREFIX, LONG, SHORT, FAR, SHARING, SCORED = "prefix", "long", "short", "far", "sharing", "scored"
PROMPTS = {LONG: 23, SHORT: 3, SHARING: SHARED + 6, SCORED: SHARED + 4, FAR: 1}
CASES = {
    PREFIX: "a beginning that others share",
    LONG: "a long prompt in chunks",
    SHORT: "a short prompt beside a long one",
    SHARING: "a shared beginning",
    SCORED: "labels to score",
}
DECODING, BESIDE_FAR = "decoding", "a row far on in its context beside others"


@dataclass(frozen=True, slots=True)
class Sample:
    """Logits [V] of the last of `tokens`, which saw all of them and nothing else."""

    case: str
    tokens: Tokens
    logits: torch.Tensor


class Trial:
    """The rows. `texts` are their prompts and forced answers; `labels` follow the scored one."""

    def __init__(self, vocabulary: int) -> None:
        source = random.Random(0)  # noqa: S311 - any tokens will do, the same each time
        begin, label, other = (_draw(source, vocabulary, n) for n in (SHARED, 3, 2))
        self.labels = (label, (*label[:2], other[0]), (label[0], other[1]), other)
        self.texts = {PREFIX: begin}
        for name, length in PROMPTS.items():
            drawn = _draw(source, vocabulary, length + ANSWER)
            shares = name in (SHARING, SCORED)
            self.texts[name] = begin + drawn[SHARED:] if shares else drawn

    def prompt(self, name: str) -> Tokens:
        return self.texts[name][: PROMPTS.get(name, SHARED)]

    def run(self, model: PackedModel, context: int) -> Iterator[Sample]:
        """`context`: the most tokens of a row."""
        run = _Run(self, model)
        run.admit(PREFIX, LONG)
        yield from run.step((LONG, 4))  # nothing is wanted of it
        run.admit(SHORT, SHARING)
        yield from run.step((PREFIX, SHARED), (SHORT, 3), (LONG, 6), (SHARING, 6))
        run.admit(SCORED)
        yield from run.step((LONG, 13), (SCORED, 4))
        yield from run.step()
        run.admit(FAR)
        yield from run.step((FAR, 1), far=context - 1)


class _Run:
    """One run's rows and arena."""

    def __init__(self, trial: Trial, model: PackedModel) -> None:
        self._trial = trial
        self._model = model
        positions = sum(len(text) for text in trial.texts.values()) + 8 * len(trial.labels)
        self._store = Store(model.layers, positions, model.device)
        self._rows = Rows(len(trial.texts))
        self._last = torch.zeros(len(trial.texts), dtype=torch.int64, device=model.device)
        self._end = 0

    def admit(self, *names: str) -> None:
        for name in names:
            scored = name == SCORED
            purpose = Purpose.PREFIX if name == PREFIX else Purpose.GENERATE
            row = Row(
                name,
                self._trial.prompt(name),
                SamplingParams(),
                Purpose.SCORE if scored else purpose,
                self._trial.labels if scored else (),
            )
            # The beginning that is shared is the first in the arena.
            prefix = Region(0, SHARED) if name in (SHARING, SCORED) else None
            length = len(self._trial.texts[name]) + sum(map(len, row.choices))
            self._rows.admit(row, Place(Region(self._end, length), prefix))
            self._end += length

    def step(self, *chunks: tuple[str, int], far: int | None = None) -> Iterator[Sample]:
        texts, rows = self._trial.texts, self._rows
        before = {name: self._length(name) for name in texts}
        for name, length in before.items():
            slot = rows.slot(name)
            if slot is not None and length < len(texts[name]):
                self._last[slot] = texts[name][length]
        step = rows.step(StepPlan(chunks=tuple(Chunk(*chunk) for chunk in chunks)), self._last)
        layout = step.layout
        wanted, layout.keep = layout.keep, torch.arange(layout.size, device=self._model.device)
        if far is not None:  # what a model does with positions, without a row as long as that
            layout.positions[-1] = far
        logits = self._model.forward(layout, self._store)
        seen = list(self._seen(step, chunks, before, far is not None))
        for (case, tokens), line in zip(seen, logits, strict=True):
            yield Sample(case, tokens, line)
        # Again as steps are run: a last layer may go on with what is kept alone.
        layout.keep = wanted
        logits = self._model.forward(layout, self._store)
        for at, line in zip(wanted.tolist(), logits, strict=True):
            case, tokens = seen[at]
            yield Sample(case, tokens, line)
        for slot in (*step.read, *(scored.slot for scored in step.scored)):
            rows.release(slot)

    def _length(self, name: str) -> int:
        slot = self._rows.slot(name)
        return 0 if slot is None else int(self._rows.length[slot])

    def _seen(
        self, step: Step, chunks: Sequence[tuple[str, int]], before: dict[str, int], far: bool
    ) -> Iterator[tuple[str, Tokens]]:
        """For each token of the step its case and all tokens that it sees."""
        texts = self._trial.texts
        for slot in step.decoding.tolist():
            name = self._rows.row(slot).id
            yield BESIDE_FAR if far else DECODING, texts[name][: before[name] + 1]
        for name, length in chunks:
            for at in range(before[name], before[name] + length):
                yield CASES.get(name, FAR), texts[name][: at + 1]
            if name == SCORED:
                tree = choice_tree(self._trial.labels)
                for node in range(len(tree.tokens)):
                    yield CASES[name], self._trial.prompt(name) + _path(tree, node)


def _path(tree: ChoiceTree, node: int) -> Tokens:
    parent = tree.parents[node]
    return (_path(tree, parent) if parent >= 0 else ()) + (tree.tokens[node],)


def _draw(source: random.Random, vocabulary: int, count: int) -> Tokens:
    return tuple(source.randrange(vocabulary) for _ in range(count))
