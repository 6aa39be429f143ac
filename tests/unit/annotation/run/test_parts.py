"""How rows become jobs, and which are a pilot's: the same every time."""

from __future__ import annotations

from collections import Counter

import pytest

from penstock.annotation.run.ledger import Part
from penstock.annotation.run.parts import PartRows
from penstock.annotation.run.sample import Sampler, Stratum, apportion


@pytest.mark.parametrize("pilot", [[], [0], [2, 3, 9], [4, 5, 6, 7, 8, 9], list(range(10))])
@pytest.mark.parametrize("start", [0, 3, 8])
def test_the_rows_of_a_part_are_those_that_the_pilot_left(pilot: list[int], start: int) -> None:
    left = [row for row in range(start, 10) if row not in pilot]
    part = Part(key="k", start=start, stop=10, rows=len(left))

    rows = PartRows(part, pilot)

    assert [rows[index] for index in range(len(left))] == left


def drawn(size: int, seed: int = 0, labels: tuple[str | None, ...] = (None,)) -> list[int]:
    sampler = Sampler(size, seed)
    for number in range(1_000):
        sampler.offer(number, labels[number % len(labels)], number)
    return sampler.rows


def test_a_sample_has_the_size_that_was_asked_for_and_depends_on_the_seed_alone() -> None:
    assert drawn(50) == drawn(50) == sorted(set(drawn(50)))
    assert len(drawn(50)) == 50
    assert drawn(50) != drawn(50, seed=1)
    assert drawn(5_000) == list(range(1_000))


def test_half_of_a_sample_at_most_is_gold_each_label_by_its_share() -> None:
    labels = ("a", "a", "b", *([None] * 7))
    found = Counter(labels[number % 10] for number in drawn(60, labels=labels))

    assert (found["a"], found["b"], found[None]) == (20, 10, 30)
    assert len(drawn(60, labels=("a",))) == 60


def test_long_and_short_rows_are_drawn_by_their_share() -> None:
    found = Counter(number.bit_length() for number in drawn(100))

    assert found[9] == pytest.approx(26, abs=2)  # 256 to 511
    assert all(found[bits] >= 1 for bits in range(1, 11))


def test_seats_are_given_to_all_before_any_has_two() -> None:
    sizes: dict[Stratum, int] = {("a",): 90, ("b",): 9, ("c",): 1}

    assert apportion(sizes, 2) == {("a",): 1, ("b",): 1}
    assert apportion(sizes, 10) == {("a",): 8, ("b",): 1, ("c",): 1}
    assert apportion(sizes, 500) == sizes
