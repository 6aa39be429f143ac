"""Runners whose rows answer `0 1 2 …`, one number a step, and that fail on demand.

The packed one keeps the tokens of its arena and looks after every rule of a plan.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, replace

from models.choices import choice_tree
from models.fake import FakeCodec
from models.runner import (
    FinishReason,
    ModelInfo,
    Place,
    Purpose,
    Region,
    Row,
    RowStep,
    StepOutput,
    StepPlan,
)

Fault = Callable[[StepPlan, list[str]], None]
ANSWER = -1  #: what an answer's positions hold; anything else is a token of a prompt


def answer(tokens: int) -> str:
    return "".join(f"{number} " for number in range(tokens))


class Scripted:
    """What both have: `fault` sees each plan with the ids that it runs, and may raise; `gate` holds
    every step while it is closed."""

    kind = "none"

    def __init__(self, fault: Fault | None = None, context: int = 1_000) -> None:
        self.info = ModelInfo("scripted", 0, 0, "none", "none", context, self.kind)
        self.codec = FakeCodec()
        self.plans: list[StepPlan] = []
        self.ran: list[list[str]] = []
        self.forgotten: list[int] = []
        self.gate = threading.Event()
        self.gate.set()
        self.entered = threading.Event()
        self._fault = fault

    def step(self, plan: StepPlan) -> StepOutput:
        self.entered.set()
        assert self.gate.wait(30)
        self.plans.append(plan)
        return self.run(plan)

    def run(self, plan: StepPlan) -> StepOutput:
        raise NotImplementedError

    def runs(self, plan: StepPlan, ids: list[str]) -> None:
        self.ran.append(ids)
        if self._fault is not None:
            self._fault(plan, ids)

    def forget(self, micro_batch: int) -> None:
        self.forgotten.append(micro_batch)

    def answer(self, tokens: int) -> str:
        return answer(tokens)


def speak(row: Row, given: int, context: int) -> RowStep | None:
    """The step of a row that gave so many tokens before. None: it has nothing to say."""
    ends = given + 1 == min(row.sampling.max_tokens, context - len(row.prompt))
    if not ends:
        return RowStep(row.id, f"{given} ") if row.stream else None
    text = f"{given} " if row.stream else answer(given + 1)
    return RowStep(row.id, text, FinishReason.LENGTH, given + 1)


class ScriptedPadded(Scripted):
    """Rows end after `max_tokens` steps."""

    kind = "padded"

    def __init__(self, fault: Fault | None = None) -> None:
        super().__init__(fault)
        self._live: dict[int, dict[str, tuple[int, Row]]] = {}

    def run(self, plan: StepPlan) -> StepOutput:
        if plan.admit:
            self._live[plan.micro_batch] = {row.id: (0, row) for row in plan.admit}
        live = self._live[plan.micro_batch]
        for id in plan.drop:
            del live[id]
        ran = list(live)
        self.runs(plan, ran)
        steps = []
        for id, (given, row) in list(live.items()):
            live[id] = (given + 1, row)
            if step := speak(row, given, self.info.context):
                steps.append(step)
                if step.finish:
                    del live[id]
        started = tuple(ran) if plan.admit else ()
        return StepOutput(tuple(steps), started, len(ran), len(ran), len(ran))

    def forget(self, micro_batch: int) -> None:
        super().forget(micro_batch)
        self._live.pop(micro_batch, None)


@dataclass(slots=True)
class Slot:
    row: Row
    place: Place
    read: int
    given: int = 0

    @property
    def is_read(self) -> bool:
        return self.read == len(self.row.prompt)

    def position(self, index: int) -> int:
        """Where the token of this index in the sequence is."""
        prefix = self.place.prefix
        if prefix is None:
            return self.place.own.start + index
        if index < prefix.length:
            return prefix.start + index
        return self.place.own.start + index - prefix.length


class ScriptedPacked(Scripted):
    """Raises AssertionError for a plan that breaks a rule. `late`: what a step brought is told by
    the next one, as `pending`. `slots` and `budget` are the most rows and tokens of a step."""

    kind = "fake"

    def __init__(
        self,
        fault: Fault | None = None,
        *,
        context: int = 1_000,
        kv_tokens: int = 10_000,
        slots: int = 10_000,
        budget: int = 10_000,
        late: bool = False,
    ) -> None:
        super().__init__(fault, context)
        self.info = replace(self.info, kv_tokens=kv_tokens)
        self.live: dict[str, Slot] = {}
        self.broken: list[str] = []  #: rules, for an engine treats an AssertionError as any error
        self._arena: list[int | None] = [None] * kv_tokens
        self._slots = slots
        self._budget = budget
        self._late = late
        self._untold: StepOutput | None = None

    def run(self, plan: StepPlan) -> StepOutput:
        try:
            return self._run(plan)
        except AssertionError as error:
            self.broken.append(str(error))
            raise

    def _run(self, plan: StepPlan) -> StepOutput:
        for id in plan.drop:
            self.live.pop(id, None)
        decoding = [
            slot
            for id, slot in self.live.items()
            if slot.is_read and (plan.decode is None or id in plan.decode)
        ]
        for row, place in zip(plan.admit, plan.places, strict=True):
            self._admit(row, place)
        chunked = [(self.live[chunk.id], chunk.tokens) for chunk in plan.chunks]
        self._check_budget(plan, decoding, chunked)
        self.runs(plan, [slot.row.id for slot in decoding] + [c.id for c in plan.chunks])
        for slot, tokens in chunked:
            for index in range(slot.read, slot.read + tokens):
                self._write(slot, index, slot.row.prompt[index])
            slot.read += tokens
        ending = [slot for slot, tokens in chunked if slot.is_read]
        for slot in (*decoding, *(slot for slot, _ in chunked)):
            self._check_sees(slot)
        return self._tell(self._output(decoding, ending, sum(tokens for _, tokens in chunked)))

    def forget(self, micro_batch: int) -> None:
        super().forget(micro_batch)
        self.live.clear()
        self._untold = None

    def _admit(self, row: Row, place: Place) -> None:
        assert row.id not in self.live, "admitted twice"
        assert place.known < len(row.prompt), "nothing left to read"
        for other in self.live.values():
            assert not overlap(place.own, other.place.own), "two rows in one region"
            if other.place.prefix is not None:
                assert not overlap(place.own, other.place.prefix), "a row in a shared prefix"
        assert place.own.end <= len(self._arena), "outside of the arena"
        if place.copy is not None:
            assert not overlap(place.own, place.copy), "copied onto itself"
            source = self._arena[place.copy.start : place.copy.end]
            assert source == list(row.prompt[: place.copy.length]), "copied something else"
            self._arena[place.own.start : place.own.start + place.copy.length] = source
        answer = len(choice_tree(row.choices).tokens)
        if row.purpose is Purpose.GENERATE:
            answer = min(row.sampling.max_tokens, self.info.context - len(row.prompt))
        shared = place.prefix.length if place.prefix is not None else 0
        assert place.own.length == len(row.prompt) - shared + answer, "not the room it needs"
        self.live[row.id] = Slot(row, place, place.known)
        assert len(self.live) <= self._slots, "more rows than slots"

    def _check_budget(
        self, plan: StepPlan, decoding: list[Slot], chunked: list[tuple[Slot, int]]
    ) -> None:
        assert all(tokens > 0 for _, tokens in chunked), "an empty chunk"
        assert len({slot.row.id for slot, _ in chunked}) == len(chunked), "chunked twice"
        entering = {row.id for row in plan.admit}
        assert entering <= {chunk.id for chunk in plan.chunks}, "entered for nothing"
        trees = [
            len(choice_tree(slot.row.choices).tokens) * (slot.read + tokens == len(slot.row.prompt))
            for slot, tokens in chunked
        ]
        total = len(decoding) + sum(tokens for _, tokens in chunked) + sum(trees)
        if not (len(chunked) == 1 and chunked[0][1] == 1 and trees[0]):
            assert total <= self._budget, "more tokens than the budget"

    def _write(self, slot: Slot, index: int, token: int) -> None:
        position = slot.position(index)
        assert slot.place.own.start <= position < slot.place.own.end, "wrote elsewhere"
        self._arena[position] = token

    def _check_sees(self, slot: Slot) -> None:
        seen = tuple(self._arena[slot.position(index)] for index in range(slot.read))
        assert seen == slot.row.prompt[: slot.read], "read another's tokens"

    def _output(self, decoding: list[Slot], ending: list[Slot], read: int) -> StepOutput:
        steps, started, sampled = [], [], 0
        for slot in (*decoding, *ending):
            row = slot.row
            if slot.given == 0 and row.purpose is not Purpose.PREFIX:
                started.append(row.id)
            if row.purpose is Purpose.GENERATE:
                if slot.given:
                    self._write(slot, len(row.prompt) + slot.given - 1, ANSWER)
                step = speak(row, slot.given, self.info.context)
                sampled += 1
            else:
                scores = tuple(-float(len(choice)) for choice in row.choices)
                step = RowStep(row.id, finish=FinishReason.STOP, scores=scores)
            slot.given += 1
            if step is not None:
                steps.append(step)
                if step.finish:
                    del self.live[row.id]
        total = len(decoding) + read
        return StepOutput(tuple(steps), tuple(started), sampled, total, total)

    def _tell(self, output: StepOutput) -> StepOutput:
        if not self._late:
            return output
        before, self._untold = self._untold or StepOutput(), output
        has_news = bool(output.rows or output.started or output.sampled)
        return replace(before, pending=has_news)


def overlap(one: Region, other: Region) -> bool:
    return one.start < other.end and other.start < one.end
