"""The rows of a packed runner: which slot each has, what it has read, and the step's layout made of
them. Index arithmetic on the CPU; knows no model, no sampling and no text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray

from models.choices import ChoiceTree, choice_tree
from models.packed.layout import Ints, Layout
from models.runner import Place, Purpose, Row, StepPlan

Slots = NDArray[np.int64]
tree_of = lru_cache(maxsize=64)(choice_tree)


@dataclass(slots=True)
class _Prompt:
    """One row's own constants."""

    row: Row
    tokens: Slots  # [P] its prompt
    tree: ChoiceTree | None


@dataclass(frozen=True, slots=True)
class Scored:
    """A row whose logits [1 + nodes] begin at `first` of those that are kept."""

    id: str
    slot: int
    first: int
    tree: ChoiceTree


@dataclass(frozen=True, slots=True)
class Step:
    """A layout and who is in it. `sampling`: slots that sample; their logits are at `at`."""

    layout: Layout
    decoding: Slots
    sampling: Slots
    at: Slots
    started: tuple[str, ...]  # rows that sample their first token
    scored: tuple[Scored, ...]
    read: tuple[int, ...]  # slots of prefixes that are read now


class Rows:
    """Slots, in arrays with one entry each. `length` counts tokens whose keys are stored."""

    def __init__(self, slots: int) -> None:
        self._free = list(range(slots - 1, -1, -1))
        self._prompts: dict[int, _Prompt] = {}
        self._slots: dict[str, int] = {}
        self.own_start = np.zeros(slots, dtype=np.int64)
        self.prefix_start = np.zeros(slots, dtype=np.int64)
        self.prefix_length = np.zeros(slots, dtype=np.int64)
        self.length = np.zeros(slots, dtype=np.int64)
        self._decodes = np.zeros(slots, dtype=np.bool_)

    def __len__(self) -> int:
        return len(self._slots)

    def row(self, slot: int) -> Row:
        return self._prompts[slot].row

    def slot(self, id: str) -> int | None:
        return self._slots.get(id)

    def all(self) -> list[int]:
        return list(self._prompts)

    def admit(self, row: Row, place: Place) -> int:
        """Raises RuntimeError when no slot is free: the caller counts them, too."""
        if not self._free:
            raise RuntimeError("more rows than slots")
        slot = self._free.pop()
        self._slots[row.id] = slot
        tree = tree_of(row.choices) if row.purpose is Purpose.SCORE else None
        self._prompts[slot] = _Prompt(row, np.array(row.prompt, dtype=np.int64), tree)
        self.own_start[slot] = place.own.start
        self.prefix_start[slot] = place.prefix.start if place.prefix else 0
        self.prefix_length[slot] = place.prefix.length if place.prefix else 0
        self.length[slot] = place.known
        self._decodes[slot] = False
        return slot

    def release(self, slot: int) -> None:
        del self._slots[self._prompts.pop(slot).row.id]
        self._decodes[slot] = False
        self._free.append(slot)

    # ---- one step -------------------------------------------------------------------------

    def step(self, plan: StepPlan, last: torch.Tensor) -> Step:
        """Lay out a plan's tokens; `last` [slots] on the device holds each row's newest token.
        Lengths move on, and rows whose prompt ends decode from the next step on."""
        decoding = self._decoding(plan)
        layout = _Builder(self, decoding)
        sampling, at = list(decoding), list(range(len(decoding)))
        started: list[str] = []
        scored: list[Scored] = []
        read: list[int] = []
        for chunk in plan.chunks:
            slot = self._slots.get(chunk.id)
            if slot is None:
                continue  # it was refused when it came
            prompt = self._prompts[slot]
            layout.chunk(slot, prompt.tokens, chunk.tokens)
            if self.length[slot] < len(prompt.tokens):
                continue
            if prompt.row.purpose is Purpose.PREFIX:
                read.append(slot)
            elif prompt.tree is not None:
                scored.append(Scored(chunk.id, slot, layout.keep_last(), prompt.tree))
                layout.branches(slot, prompt.tree)
            else:
                at.append(layout.keep_last())
                sampling.append(slot)
                started.append(chunk.id)
                self._decodes[slot] = True
        return Step(
            layout=layout.build(last),
            decoding=decoding,
            sampling=np.array(sampling, dtype=np.int64),
            at=np.array(at, dtype=np.int64),
            started=tuple(started),
            scored=tuple(scored),
            read=tuple(read),
        )

    def _decoding(self, plan: StepPlan) -> Slots:
        if plan.decode is None:
            return np.flatnonzero(self._decodes)
        slots = [self._slots[id] for id in plan.decode if id in self._slots]
        return np.array(sorted(s for s in slots if self._decodes[s]), dtype=np.int64)


@lru_cache(maxsize=64)
def _branches(tree: ChoiceTree) -> tuple[Slots, Slots, Slots, Slots]:
    """Tokens, depths, and for each node itself and its ancestors: counts, and nodes in one row."""
    paths: list[list[int]] = []
    for node, parent in enumerate(tree.parents):
        paths.append([*(paths[parent] if parent >= 0 else []), node])
    counts = [len(path) for path in paths]
    flat = [node for path in paths for node in path]
    return (
        np.array(tree.tokens, dtype=np.int64),
        np.array(counts, dtype=np.int64) - 1,
        np.array(counts, dtype=np.int64),
        np.array(flat, dtype=np.int64),
    )


class _Builder:
    """Collects a step's tokens: decode rows first, then chunks and branches in order."""

    def __init__(self, rows: Rows, decoding: Slots) -> None:
        self._rows = rows
        self._decoding = decoding
        places = rows.length[decoding]
        rows.length[decoding] += 1
        size = len(decoding)
        self.size = size
        self._kept = list(range(size))
        self._blocks = list(range(size + 1))
        self._tokens: list[Slots] = []
        self._slots = [decoding]
        self._places = [places]
        self._visible = [places - rows.prefix_length[decoding] + 1]
        self._offset = [places - rows.prefix_length[decoding]]  # in the own region
        self._extra: list[Slots] = []
        self._extra_counts = [np.zeros(size, dtype=np.int64)]

    def chunk(self, slot: int, prompt: Slots, tokens: int) -> None:
        rows = self._rows
        start = int(rows.length[slot])
        places = np.arange(start, start + tokens)
        offset = places - rows.prefix_length[slot]
        self._add(slot, prompt[start : start + tokens], places, offset + 1, offset)
        self._extra_counts.append(np.zeros(tokens, dtype=np.int64))
        rows.length[slot] += tokens

    def branches(self, slot: int, tree: ChoiceTree) -> None:
        if not tree.tokens:
            return
        tokens, depths, counts, ancestors = _branches(tree)
        end = int(self._rows.length[slot])
        own = end - int(self._rows.prefix_length[slot])
        size = len(tokens)
        self._kept += range(self.size, self.size + size)
        self._add(slot, tokens, end + depths, np.full(size, own), own + np.arange(size))
        self._extra_counts.append(counts)
        self._extra.append(self._rows.own_start[slot] + own + ancestors)

    def keep_last(self) -> int:
        """Keep the newest token's logits; returns their place among those that are kept."""
        self._kept.append(self.size - 1)
        return len(self._kept) - 1

    def _add(self, slot: int, tokens: Slots, places: Slots, visible: Slots, offset: Slots) -> None:
        self._tokens.append(tokens)
        self._slots.append(np.full(len(tokens), slot))
        self._places.append(places)
        self._visible.append(visible)
        self._offset.append(offset)
        self.size += len(tokens)
        self._blocks.append(self.size)

    def build(self, last: torch.Tensor) -> Layout:
        rows, device = self._rows, last.device
        slots = np.concatenate(self._slots)
        places = np.concatenate(self._places)
        write = rows.own_start[slots] + np.concatenate(self._offset)
        tokens = last[torch.from_numpy(self._decoding).to(device, non_blocking=True)]
        if self._tokens:
            read = torch.from_numpy(np.concatenate(self._tokens)).to(device, non_blocking=True)
            tokens = torch.cat([tokens, read])
        counts = np.concatenate(self._extra_counts)
        return Layout(
            tokens=tokens,
            positions=torch.from_numpy(places).to(device, non_blocking=True),
            write=torch.from_numpy(write).to(device, non_blocking=True),
            keep=torch.tensor(self._kept, dtype=torch.int64).to(device, non_blocking=True),
            blocks=_ints(self._blocks),
            prefix_start=_ints(rows.prefix_start[slots]),
            prefix_length=_ints(rows.prefix_length[slots]),
            own_start=_ints(rows.own_start[slots]),
            visible=_ints(np.concatenate(self._visible)),
            places=_ints(places),
            extra_start=_ints(np.concatenate([[0], np.cumsum(counts)])),
            extra=_ints(np.concatenate(self._extra) if self._extra else []),
        )


def _ints(values: Sequence[int] | Slots) -> Ints:
    return np.asarray(values, dtype=np.int32)
