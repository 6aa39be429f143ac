"""Regions never overlap, and what is given back is whole again."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from batching.arena import Arena
from models.runner import Region


def test_the_smallest_block_that_fits_is_cut() -> None:
    arena = Arena(100)
    regions = [arena.take(length) for length in (30, 5, 10, 5, 50)]
    assert None not in regions
    for index in (0, 2):
        region = regions[index]
        assert region is not None
        arena.give(region)
    assert arena.take(8) == Region(35, 8)
    assert arena.take(30) == Region(0, 30)
    assert arena.take(3) is None


def test_neighbors_that_are_free_join() -> None:
    arena = Arena(30)
    first, second, third = (arena.take(10) for _ in range(3))
    assert first and second and third
    for region in (first, third, second):
        arena.give(region)
    assert arena.take(30) == Region(0, 30)


def test_a_part_can_be_left_alone_from_below_and_filled_from_above() -> None:
    arena = Arena(100)
    assert arena.take(91, below=90) is None
    assert arena.take(50, below=90) == Region(0, 50)
    assert arena.take_high(5, above=90) == Region(95, 5)
    assert arena.take_high(20, above=90) == Region(75, 20)
    assert arena.take_high(26, above=90) is None


def test_a_region_gives_back_its_end() -> None:
    arena = Arena(20)
    region = arena.take(20)
    assert region is not None
    assert arena.shrink(region, 12) == Region(0, 12)
    assert arena.free == 8
    assert arena.take(8) == Region(12, 8)


@given(
    st.lists(
        st.tuples(st.integers(1, 40), st.booleans(), st.integers(0, 30)), min_size=1, max_size=60
    )
)
def test_whatever_is_taken_and_given_nothing_overlaps_or_gets_lost(
    actions: list[tuple[int, bool, int]],
) -> None:
    arena, held = Arena(100), list[Region]()
    for length, high, choice in actions:
        if held and choice % 3 == 0:
            arena.give(held.pop(choice % len(held)))
        region = arena.take_high(length, 80) if high else arena.take(length, 80)
        if region is not None:
            assert 0 <= region.start < region.end <= (100 if high else 80)
            assert all(region.end <= one.start or one.end <= region.start for one in held)
            held.append(region)
        assert arena.free == 100 - sum(one.length for one in held)
    for region in held:
        arena.give(region)
    assert arena.take(100) == Region(0, 100)
