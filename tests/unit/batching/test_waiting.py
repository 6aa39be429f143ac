"""What is cut out of the waiting queue, and that nothing stays behind in a corner of it."""

from __future__ import annotations

from collections.abc import Iterable

from hypothesis import given
from hypothesis import strategies as st

from batching.requests import EngineLane, EngineRequest
from batching.sequence import Sequence
from batching.waiting import WaitingQueue
from models.runner import SamplingParams


def sequence(number: int, length: int) -> Sequence:
    request = EngineRequest(f"r{number}", "bulk", (1,) * length, SamplingParams())
    return Sequence(request, EngineLane.BULK, number, 0.0, alone=False)


def filled(lengths: Iterable[int]) -> WaitingQueue:
    queue = WaitingQueue()
    for number, length in enumerate(lengths):
        queue.add(sequence(number, length))
    return queue


def lengths(rows: list[Sequence]) -> list[int]:
    return [len(row.request.prompt) for row in rows]


def test_like_lengths_go_together_from_the_longest_down() -> None:
    queue = filled([5, 90, 7, 88, 6, 91])
    assert lengths(queue.take(3, 1_000, around_oldest=False, only_full=True)) == [88, 90, 91]
    assert lengths(queue.take(3, 1_000, around_oldest=False, only_full=True)) == [5, 6, 7]
    assert not len(queue)


def test_the_oldest_takes_its_nearest_neighbors_with_it() -> None:
    queue = filled([50, 1, 2, 49, 52, 100])
    assert lengths(queue.take(3, 1_000, around_oldest=True, only_full=True)) == [49, 50, 52]


def test_rows_times_the_longest_stay_within_the_budget() -> None:
    queue = filled([10] * 5)
    assert len(queue.take(64, 39, around_oldest=False, only_full=True)) == 3


def test_of_the_same_length_the_oldest_goes_first() -> None:
    queue = filled([10] * 5)
    taken = queue.take(2, 1_000, around_oldest=False, only_full=True)
    assert {row.number for row in taken} == {0, 1}


def test_a_prompt_above_the_budget_goes_alone() -> None:
    queue = filled([500, 3])
    assert lengths(queue.take(64, 100, around_oldest=False, only_full=True)) == [500]


def test_a_group_that_more_waiting_could_fill_stays_when_only_full_ones_are_wanted() -> None:
    queue = filled([10, 10])
    assert queue.take(64, 1_000, around_oldest=False, only_full=True) == []
    assert len(queue.take(64, 1_000, around_oldest=False, only_full=False)) == 2


def test_what_is_put_back_is_the_oldest_again() -> None:
    queue = filled([10, 20, 30])
    taken = queue.take(1, 1_000, around_oldest=False, only_full=False)
    queue.put_back(taken[0])
    assert queue.oldest is taken[0]
    assert queue.remove(taken[0].id) is taken[0]
    assert len(queue) == 2


@given(
    st.lists(st.integers(1, 60), max_size=40),
    st.integers(1, 8),
    st.integers(1, 200),
    st.lists(st.booleans(), min_size=60, max_size=60),
)
def test_every_prompt_is_taken_once_within_the_limits(
    prompts: list[int], max_rows: int, max_tokens: int, around_oldest: list[bool]
) -> None:
    queue, taken, choices = filled(prompts), [], iter(around_oldest)
    while oldest := queue.oldest:
        around = next(choices)
        rows = queue.take(max_rows, max_tokens, around_oldest=around, only_full=False)
        assert 1 <= len(rows) <= max_rows
        assert len(rows) == 1 or len(rows) * max(lengths(rows)) <= max_tokens
        assert not around or oldest in rows
        taken += [row.number for row in rows]
    assert sorted(taken) == list(range(len(prompts)))
