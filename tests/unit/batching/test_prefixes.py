"""What is known of the arena: found by tokens, kept while used, forgotten by least recent use."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from batching.arena import Arena
from batching.beginnings import common_length, shared_beginning
from batching.prefixes import Prefix, Prefixes

Tokens = tuple[int, ...]


def tokens(start: int, length: int = 10) -> Tokens:
    return tuple(range(start, start + length))


def kept(arena: Arena, prefixes: Prefixes, prompt: Tokens) -> Prefix | None:
    region = arena.take(len(prompt) + 3)
    assert region is not None
    prefixes.keep(prompt, region)
    return prefixes.match((*prompt, -1), to_copy=True)[0]


def test_the_longest_common_beginning_is_found_but_never_the_last_token() -> None:
    arena = Arena(100)
    prefixes = Prefixes(arena, 4, 50)
    kept(arena, prefixes, tokens(0, 6))
    longer = kept(arena, prefixes, (*tokens(0, 5), *tokens(50, 5)))
    assert prefixes.match((*tokens(0, 5), 50, 51, 99), to_copy=True) == (longer, 7)
    assert prefixes.match(tokens(0, 6), to_copy=True)[1] == 5
    assert prefixes.match(tokens(0, 4), to_copy=True) == (None, 0)
    assert prefixes.match((9, *tokens(1, 9)), to_copy=True) == (None, 0)


def test_of_a_row_that_ended_only_its_prompt_is_kept() -> None:
    arena = Arena(100)
    prefixes = Prefixes(arena, 4, 50)
    kept(arena, prefixes, tokens(0))
    assert prefixes.idle_tokens == 10
    assert arena.free == 90


def test_a_longer_turn_takes_the_place_of_the_earlier_one() -> None:
    arena = Arena(100)
    prefixes = Prefixes(arena, 4, 50)
    for length in (10, 14, 14, 8):
        kept(arena, prefixes, tokens(0, length))
    assert prefixes.idle_tokens == 14
    assert arena.free == 86


def test_what_was_not_used_for_longest_is_forgotten_first() -> None:
    arena = Arena(100)
    prefixes = Prefixes(arena, 4, 25)
    first, second = (kept(arena, prefixes, tokens(start)) for start in (0, 100))
    assert first is not None
    prefixes.use(first)
    prefixes.release(first)
    kept(arena, prefixes, tokens(200))
    found = [prefixes.match(tokens(start, 11), to_copy=True)[0] for start in (0, 100, 200)]
    assert [prefix is not None for prefix in found] == [True, False, True]
    assert second not in found


def test_what_is_used_is_never_evicted() -> None:
    arena = Arena(100)
    prefixes = Prefixes(arena, 4, 50)
    used, unused = (kept(arena, prefixes, tokens(start)) for start in (0, 100))
    assert used is not None
    prefixes.use(used)
    assert prefixes.evict(100)
    assert not prefixes.evict(100)
    assert prefixes.match(tokens(0, 11), to_copy=True)[0] is used
    assert unused is not None


def test_one_that_is_being_read_is_waited_for_but_not_copied() -> None:
    arena = Arena(100)
    prefixes = Prefixes(arena, 4, 5)
    region = arena.take(10)
    assert region is not None
    fresh = prefixes.add(tokens(0), region)
    assert prefixes.match(tokens(0, 11), to_copy=False) == (fresh, 10)
    assert prefixes.match(tokens(0, 11), to_copy=True) == (None, 0)
    prefixes.release(fresh)
    assert prefixes.match(tokens(0, 11), to_copy=False) == (fresh, 10), "it has not served yet"


def test_without_a_shortest_length_nothing_is_kept() -> None:
    arena = Arena(100)
    prefixes = Prefixes(arena, 0, 50)
    assert kept(arena, prefixes, tokens(0)) is None
    assert arena.free == 100


@given(st.lists(st.integers(0, 2)), st.lists(st.integers(0, 2)), st.integers(0, 20))
def test_common_lengths_are_those_of_counting(one: list[int], other: list[int], most: int) -> None:
    expected = 0
    for a, b in zip(one, other, strict=False):
        if a != b or expected >= most:
            break
        expected += 1
    assert common_length(tuple(one), tuple(other), most) == expected


def test_the_beginning_that_saves_most_is_shared() -> None:
    common, block = tokens(0, 40), tokens(100, 10)
    rows = [(*common, *block, number) for number in range(1_000, 1_002)]
    rows += [(*common, number) for number in range(2_000, 2_010)]
    assert shared_beginning(rows[0], rows[1:]) == 40
    assert shared_beginning(rows[0], rows[1:2]) == 0, "two rows are too few"
    assert shared_beginning(rows[0], [tokens(500)] * 5) == 0
    assert shared_beginning(common, [common] * 4) == 39
