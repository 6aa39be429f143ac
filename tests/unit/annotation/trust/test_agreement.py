"""Agreement beside the published examples and scikit-learn."""

from __future__ import annotations

import random

import pytest
from sklearn.metrics import cohen_kappa_score

from penstock.annotation.trust.agreement import cohen_kappa, krippendorff_alpha, majority


def units(*observers: str) -> list[tuple[str | None, ...]]:
    """What all observers said of each row; a dot is nothing."""
    cells = [[None if cell == "." else cell for cell in line] for line in observers]
    return list(zip(*cells, strict=True))


@pytest.mark.parametrize(
    ("observers", "alpha"),
    [
        (("0100000010", "1110010000"), 0.095),
        (("aabbdcccedda", "babbbcccedd" + "d"), 0.692),
        (("123321412...", "1233224125.3", ".3332342251.", "12332441251."), 0.743),
    ],
)
def test_alpha_is_that_of_krippendorff_2011(observers: tuple[str, ...], alpha: float) -> None:
    found = krippendorff_alpha(units(*observers))

    assert found is not None
    assert found.middle == pytest.approx(alpha, abs=5e-4)
    assert found.low < found.middle < found.high <= 1


def table(counts: dict[tuple[str, str], int]) -> tuple[list[str], list[str]]:
    both = [pair for pair, count in counts.items() for _ in range(count)]
    return [one for one, _ in both], [other for _, other in both]


def test_kappa_is_the_textbook_one_with_its_large_sample_error() -> None:
    # 50 rows, of which 35 agree, 25 by chance: 0.4. Standard error: sqrt(.7 * .3 / 50) / .5 is the
    # simple one of Cohen (1960).
    a, b = table({("y", "y"): 20, ("y", "n"): 5, ("n", "y"): 10, ("n", "n"): 15})

    found = cohen_kappa(a, b)

    assert found is not None
    assert found.middle == pytest.approx(0.4)
    assert (found.high - found.low) / 2 == pytest.approx(1.96 * 0.1296, rel=0.06)


def test_kappa_is_that_of_scikit_learn() -> None:
    chance = random.Random(2)
    a = [chance.choice("abcd") for _ in range(300)]
    b = [label if chance.random() < 0.6 else chance.choice("abce") for label in a]
    found = cohen_kappa(a, b)
    assert found is not None
    assert found.middle == pytest.approx(cohen_kappa_score(a, b))


def test_rows_that_one_of_both_left_out_are_left_out() -> None:
    assert cohen_kappa(["a", "b", None, "a"], ["a", "b", "b", None]) == cohen_kappa("ab", "ab")


def test_intervals_hold_what_is_true_about_as_often_as_they_say() -> None:
    # Two observers of three equal classes, each right in 80 %, else any class: kappa and alpha are
    # 0.8 * 0.8.
    chance = random.Random(7)
    inside = {"kappa": 0, "alpha": 0}
    for _ in range(200):
        truth = [chance.choice("abc") for _ in range(120)]
        a, b = ([t if chance.random() < 0.8 else chance.choice("abc") for t in truth] for _ in "ab")
        kappa, alpha = cohen_kappa(a, b), krippendorff_alpha(zip(a, b, strict=True))
        assert kappa is not None
        assert alpha is not None
        inside["kappa"] += kappa.low <= 0.64 <= kappa.high
        inside["alpha"] += alpha.low <= 0.64 <= alpha.high

    assert all(180 <= held <= 199 for held in inside.values()), inside


def test_full_agreement_is_1_and_no_variation_says_nothing() -> None:
    full = krippendorff_alpha([("a", "a"), ("b", "b"), ("b", "b")])
    assert full is not None
    assert (full.low, full.middle, full.high) == (1, 1, 1)
    assert krippendorff_alpha([("a", "a")] * 5) is None
    assert krippendorff_alpha([("a", None), (None, None)]) is None
    assert cohen_kappa(["a"] * 5, ["a"] * 5) is None
    assert cohen_kappa([], []) is None


def test_sets_of_labels_agree_in_any_order() -> None:
    found = krippendorff_alpha([(["a", "b"], ["b", "a"]), (["a"], ["a"]), ([], [])])
    assert found is not None
    assert found.middle == 1


def test_a_majority_tells_ties_in_the_order_of_the_votes() -> None:
    assert majority(["b", "a", "b"]) == (["b"], 2)
    assert majority(["b", "a"]) == (["b", "a"], 1)
    assert majority([{"x": 1}, {"x": 1}, {"x": 2}]) == ([{"x": 1}], 2)
