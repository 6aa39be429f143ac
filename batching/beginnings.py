"""Common beginnings of prompts. Knows no arena and no queue."""

from __future__ import annotations

from collections.abc import Iterable

Tokens = tuple[int, ...]

#: Fewer rows than this do not pay for a prefix of their own.
FEWEST_ROWS = 3


def common_length(one: Tokens, other: Tokens, most: int) -> int:
    """Tokens that two prompts have in common at their beginning, `most` at most."""
    low, high = 0, min(most, len(one), len(other)) + 1
    # one[:low] == other[:low], and not so at `high`; the first try is the likeliest answer.
    middle = high - 1
    while high - low > 1:
        if one[low:middle] == other[low:middle]:
            low = middle
        else:
            high = middle
        middle = (low + high) // 2
    return low


def shared_beginning(prompt: Tokens, others: Iterable[Tokens]) -> int:
    """How much of a prompt to store once for it and others: what saves most tokens. 0: nothing.

    Everyone reads at least its last token itself.
    """
    lengths = [common_length(prompt, other, min(len(prompt), len(other)) - 1) for other in others]
    lengths.sort(reverse=True)
    # With the prompt itself, `count` rows have the first `length` tokens in common.
    saved = [
        (length * (count - 1), length)
        for count, length in enumerate(lengths, start=2)
        if count >= FEWEST_ROWS
    ]
    return max(saved, default=(0, 0))[1]
