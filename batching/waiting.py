"""The waiting queue of one lane of the padded scheduler: by length, to cut groups of like lengths;
by age, so that none starves. Knows no time and no rows that run."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import OrderedDict

from batching.sequence import Sequence

Key = tuple[int, int, Sequence]  #: prompt length, minus the number, the sequence


class WaitingQueue:
    """Prompts that wait. Every operation is at worst a shift of one list of pointers."""

    def __init__(self) -> None:
        self._by_length: list[Key] = []  #: those of `_company`
        self._company: OrderedDict[str, Sequence] = OrderedDict()
        self._singles: OrderedDict[str, Sequence] = OrderedDict()
        self._alone: OrderedDict[str, Sequence] = OrderedDict()

    def __len__(self) -> int:
        return len(self._company) + len(self._singles) + len(self._alone)

    @property
    def has_alone(self) -> bool:
        return bool(self._alone)

    @property
    def has_single(self) -> bool:
        return bool(self._singles)

    @property
    def oldest(self) -> Sequence | None:
        """The first in line of those that run in company."""
        return next(iter(self._company.values()), None)

    @property
    def oldest_arrival(self) -> float | None:
        """When the first of them all arrived."""
        lines = (self._company, self._singles, self._alone)
        firsts = (next(iter(line.values()), None) for line in lines)
        return min((first.arrived for first in firsts if first is not None), default=None)

    def add(self, sequence: Sequence) -> None:
        line = self._line(sequence)
        line[sequence.id] = sequence
        if line is self._company:
            insort(self._by_length, _key(sequence))

    def put_back(self, sequence: Sequence) -> None:
        """Requeue in front."""
        self.add(sequence)
        self._line(sequence).move_to_end(sequence.id, last=False)

    def remove(self, id: str) -> Sequence | None:
        sequence = self._company.pop(id, None)
        if sequence is not None:
            del self._by_length[self._index(sequence)]
            return sequence
        return self._singles.pop(id, None) or self._alone.pop(id, None)

    def clear(self) -> list[Sequence]:
        lines = (self._alone, self._singles, self._company)
        gone = [sequence for line in lines for sequence in line.values()]
        for line in lines:
            line.clear()
        self._by_length.clear()
        return gone

    def take_alone(self) -> list[Sequence]:
        return [self._alone.popitem(last=False)[1]]

    def take_single(self) -> list[Sequence]:
        return [self._singles.popitem(last=False)[1]]

    def take(
        self, max_rows: int, max_tokens: int, *, around_oldest: bool, only_full: bool
    ) -> list[Sequence]:
        """Cut a group of like lengths out of all that wait: around the oldest, or from the longest
        down, so that a job's tail is short. Empty when `only_full` and a limit is not reached."""
        oldest = self.oldest
        if oldest is None or max_rows < 1:
            return []
        anchor = self._index(oldest) if around_oldest else len(self._by_length) - 1
        low, high = self._window(anchor, max_rows, max_tokens)
        # Some stay behind, or the rows are used up: waiting longer would not fill it more.
        full = high - low == max_rows or high - low < len(self._by_length)
        if only_full and not full:
            return []
        taken = [key[2] for key in self._by_length[low:high]]
        del self._by_length[low:high]
        for sequence in taken:
            del self._company[sequence.id]
        return taken

    def _window(self, anchor: int, max_rows: int, max_tokens: int) -> tuple[int, int]:
        """Grow [low, high) from `anchor` to the neighbor nearest in length, within the limits."""
        keys = self._by_length
        low, high, middle = anchor, anchor + 1, keys[anchor][0]
        while high - low < max_rows:
            rows = high - low + 1
            up = high < len(keys) and rows * keys[high][0] <= max_tokens
            down = low > 0 and rows * keys[high - 1][0] <= max_tokens
            if up and (not down or keys[high][0] - middle <= middle - keys[low - 1][0]):
                high += 1
            elif down:
                low -= 1
            else:
                break
        return low, high

    def _line(self, sequence: Sequence) -> OrderedDict[str, Sequence]:
        if sequence.alone:
            return self._alone
        return self._singles if sequence.single else self._company

    def _index(self, sequence: Sequence) -> int:
        return bisect_left(self._by_length, _key(sequence))


def _key(sequence: Sequence) -> Key:
    # Of the same length the oldest is last, where groups are cut.
    return (len(sequence.request.prompt), -sequence.number, sequence)
