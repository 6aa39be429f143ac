"""Gives a waiting row its place in the arena, beside the prefix that it shares, copies or waits
for. Knows no lane's turn and no limit of rows."""

from __future__ import annotations

from functools import lru_cache

from batching.arrivals import Arrivals
from batching.beginnings import Tokens, shared_beginning
from batching.draft import Draft
from batching.live import Live
from batching.memory import Memory
from batching.prefixes import Prefix
from batching.requests import EngineLane, EngineRequest
from batching.sequence import Sequence
from models.choices import choice_tree
from models.runner import Purpose, Row, SamplingParams


class Admission:
    """`short`: the last try failed for lack of room."""

    def __init__(self, memory: Memory, context: int, min_prefix: int) -> None:
        self._memory = memory
        self._context = context
        self._min_prefix = min_prefix
        self._prefixes_read = 0
        self.short = False

    def need(self, request: EngineRequest) -> int:
        """Positions of the arena that a request takes, with all of its prompt."""
        return len(request.prompt) + self._answer(request)

    def admit(self, sequence: Sequence, queue: Arrivals, draft: Draft) -> bool:
        """Let a row enter, or the prefix that it should share. False: not now."""
        request, self.short = sequence.request, False
        if request.choices and draft.chunks and 1 + self._answer(request) > draft.left:
            return False  # its tree goes with its last token: better at the start of a step
        if sequence.isolated:
            return self._enter(sequence, queue, draft, None, 0)
        # A chat's region is kept for its next turn, so it has to be in one piece.
        express = sequence.lane is EngineLane.EXPRESS
        shares = not express or request.n > 1
        prefix, known = self._memory.prefixes.match(
            request.prompt, to_copy=not shares, express=express
        )
        if prefix is not None and not prefix.ready:
            return False
        if shares and self._lead(sequence, queue, draft, prefix, known):
            return True
        if self._enter(sequence, queue, draft, prefix, known, copies=not shares):
            return True
        # What it could have read from another's region takes more room than there is.
        spare = prefix is not None and (not shares or not len(draft.live))
        return spare and self._enter(sequence, queue, draft, None, 0)

    def _enter(
        self,
        sequence: Sequence,
        queue: Arrivals,
        draft: Draft,
        prefix: Prefix | None,
        known: int,
        *,
        copies: bool = False,
    ) -> bool:
        request = sequence.request
        length = self.need(request) - known
        place = self._memory.place(length, sequence.lane, prefix, known, copies=copies)
        self.short = place is None
        if place is None:
            return False
        sequence.cached = known
        if prefix is not None and not prefix.paid:
            prefix.paid, sequence.cached = True, 0
        queue.remove(sequence.id)
        if place.prefix is not None:
            queue.shared(request.group)
        live = Live(
            row=sequence.row(),
            place=place,
            sequence=sequence,
            prefix=prefix if place.prefix is not None else None,
            unread=len(request.prompt) - known,
            nodes=self._answer(request) if request.choices else 0,
        )
        draft.enter(live)
        return True

    def _lead(
        self,
        sequence: Sequence,
        queue: Arrivals,
        draft: Draft,
        source: Prefix | None,
        known: int,
    ) -> bool:
        """Let a prefix enter that this row and others are to share, if there is a better one than
        the one that is there."""
        length = self._beginning(sequence, queue)
        if not self._min_prefix or length < known + self._min_prefix:
            return False
        if source is None or not source.written:
            source, known = None, 0
        lane, memory = sequence.lane, self._memory
        place = memory.place(length - known, lane, source, known, copies=source is not None)
        if place is None:
            return False
        tokens = sequence.request.prompt[:length]
        self._prefixes_read += 1
        draft.enter(
            Live(
                row=Row(f"#prefix{self._prefixes_read}", tokens, SamplingParams(), Purpose.PREFIX),
                place=place,
                sequence=sequence,
                prefix=memory.prefixes.add(tokens, place.own, express=lane is EngineLane.EXPRESS),
                unread=length - known,
            )
        )
        return True

    def _beginning(self, sequence: Sequence, queue: Arrivals) -> int:
        """Tokens of a row's prompt that it will share."""
        prompt = sequence.request.prompt
        if sequence.request.n > 1:
            return len(prompt) - 1
        others: list[Tokens] = queue.look(sequence.request.group)
        return shared_beginning(prompt, (other for other in others if other is not prompt))

    def _answer(self, request: EngineRequest) -> int:
        if request.choices:
            return tree_nodes(request.choices)
        return max(1, min(request.sampling.max_tokens, self._context - len(request.prompt)))


@lru_cache(maxsize=64)
def tree_nodes(choices: tuple[tuple[int, ...], ...]) -> int:
    """Tokens that are read to score some labels."""
    return len(choice_tree(choices).tokens)
