"""Temperatures and priors: they find what was done to the scores, and never worsen silently."""

from __future__ import annotations

import math
import random
from dataclasses import asdict

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from penstock.annotation.records import Reading
from penstock.annotation.trust import confidence as module
from penstock.annotation.trust.confidence import Confidence, fit, prior_of, softmax
from penstock.annotation.trust.temperature import HIGHEST, LOWEST, best_temperature
from penstock.errors import InvalidRequest

LABELS = ("a", "b", "c")
Gold = tuple[Reading, str]


def scored(scores: dict[str, float]) -> Reading:
    shares = softmax(scores)
    return Reading(max(shares, key=shares.__getitem__), scores=scores, probabilities=shares)


def rows(count: int, sharpness: float, seed: int = 3) -> list[Gold]:
    """Gold drawn from true probabilities; the scores claim to be `sharpness` times as sure."""
    chance = random.Random(seed)
    drawn = []
    for _ in range(count):
        true = {label: chance.gauss(0, 1.5) for label in LABELS}
        (gold,) = chance.choices(LABELS, list(softmax(true).values()))
        drawn.append((scored({label: sharpness * z for label, z in true.items()}), gold))
    return drawn


def test_softmax_sums_to_1_also_far_from_0() -> None:
    found = softmax({"a": -1000.0, "b": -1001.0, "c": -5000.0})
    assert sum(found.values()) == pytest.approx(1, abs=1e-12)
    assert found["a"] / found["b"] == pytest.approx(math.e)
    assert softmax({"a": 0.0, "b": -1.0}, temperature=2.0)["a"] == pytest.approx(0.62246, abs=1e-5)


def test_a_temperature_is_the_one_that_logistic_regression_finds() -> None:
    chance = np.random.default_rng(5)
    logits = chance.normal(0, 3, 400)
    gold = (chance.random(400) < 1 / (1 + np.exp(-logits / 2.5))).astype(int)
    model = LogisticRegression(C=np.inf, fit_intercept=False, tol=1e-8)
    doubt = 1 / 402  # of one row in all, the other answer is thought to be gold
    weights = np.repeat([1 - doubt, doubt], 400)
    both = np.concatenate([logits, logits]).reshape(-1, 1)
    model.fit(both, np.concatenate([gold, 1 - gold]), sample_weight=weights)

    found = best_temperature([((0.0, z), int(g)) for z, g in zip(logits, gold, strict=True)])

    assert 1 / found == pytest.approx(model.coef_[0, 0], rel=1e-3)


def test_few_rows_that_are_all_right_do_not_make_certainty() -> None:
    found = best_temperature([((0.0, 1.0), 1)] * 40)
    assert softmax({"a": 0.0, "b": 1.0}, found)["b"] == pytest.approx(41 / 42, abs=1e-4)


def test_a_temperature_stays_within_bounds_where_gold_rows_only_say_more() -> None:
    assert best_temperature([((0.0, 0.1), 1)] * 4_000) == pytest.approx(LOWEST, rel=0.01)
    assert best_temperature([((0.0, 1.0), 0)] * 40) == pytest.approx(HIGHEST, rel=0.01)


def test_overconfident_scores_are_scaled_back_and_both_calibrations_told() -> None:
    found = fit(rows(1_000, sharpness=3.0))

    assert found.temperature == pytest.approx(3.0, rel=0.15)
    assert found.before is not None
    assert found.after is not None
    assert found.after.ece < found.before.ece / 2
    assert found.after.nll < found.before.nll
    assert (found.gold, found.before.rows, found.after.rows, found.note) == (
        1_000,
        1_000,
        1_000,
        None,
    )
    assert asdict(found)["after"]["rows"] == 1_000


def test_underconfident_scores_are_sharpened() -> None:
    assert fit(rows(1_000, sharpness=0.4)).temperature == pytest.approx(0.4, rel=0.15)


def test_the_best_label_stays_the_best_at_every_temperature() -> None:
    reading = scored({"a": -2.0, "b": -1.0, "c": -9.0})
    for temperature in (0.1, 1.0, 7.0):
        shares = Confidence(temperature).probabilities(reading)
        assert shares is not None
        assert max(shares, key=shares.__getitem__) == "b"
        assert sum(shares.values()) == pytest.approx(1)


def test_scaling_that_does_not_help_on_unseen_rows_is_left_out_and_said() -> None:
    for seed in range(40):
        found = fit(rows(60, sharpness=1.0, seed=seed))
        if found.temperature == 1.0:
            break
    assert found.note is not None
    assert "left out" in found.note
    assert found.after == found.before


def test_too_few_gold_rows_fit_nothing() -> None:
    found = fit(rows(29, sharpness=3.0))
    assert found.temperature == 1.0
    assert found.note is not None
    assert "29 gold rows are too few" in found.note
    assert fit([]) == Confidence()


def test_rows_that_were_not_scored_are_no_gold() -> None:
    failed = Reading(None, error="It failed.")
    decoded = Reading("a")
    found = fit([*rows(50, 1.0), (failed, "a"), (decoded, "a"), (scored({"a": 0.0}), "z")])
    assert found.gold == 50


def test_of_very_many_gold_rows_a_sample_is_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_ROWS", 400)
    found = fit(rows(3_000, sharpness=3.0))
    assert found.gold == 3_000
    assert found.after is not None
    assert found.after.rows == 400
    assert found.temperature == pytest.approx(3.0, rel=0.25)


def test_a_prior_takes_back_what_a_content_free_prompt_prefers() -> None:
    prior = prior_of([scored({"a": math.log(0.8), "b": math.log(0.2)})] * 2)
    assert prior == pytest.approx({"a": 0.8, "b": 0.2})

    shares = Confidence(prior=prior).probabilities(scored({"a": math.log(0.6), "b": math.log(0.4)}))

    assert shares == pytest.approx({"a": 3 / 11, "b": 8 / 11})


def test_a_prior_needs_a_scored_prompt() -> None:
    with pytest.raises(InvalidRequest, match="content-free"):
        prior_of([Reading("a"), Reading(None, error="It failed.")])


def several(shares: dict[str, float]) -> Reading:
    return Reading([label for label, p in shares.items() if p >= 0.5], probabilities=shares)


def test_of_several_labels_each_is_scaled_for_itself() -> None:
    shares = Confidence(2.0).probabilities(several({"a": 0.9, "b": 0.2}))
    assert shares == pytest.approx({"a": 0.75, "b": 1 / 3})

    corrected = Confidence(prior={"a": 0.9, "b": 0.5}).probabilities(several({"a": 0.9, "b": 0.2}))
    assert corrected == pytest.approx({"a": 0.5, "b": 0.2})


def test_a_temperature_is_fitted_on_sets_of_labels() -> None:
    chance = random.Random(11)
    gold = []
    for _ in range(600):
        true = {label: chance.gauss(0, 1) for label in LABELS}
        wanted = [label for label, z in true.items() if chance.random() < 1 / (1 + math.exp(-z))]
        claimed = {label: 1 / (1 + math.exp(-4 * z)) for label, z in true.items()}
        gold.append((several(claimed), ", ".join(wanted)))

    found = fit(gold)

    assert found.temperature == pytest.approx(4.0, rel=0.2)
    assert found.before is not None
    assert found.after is not None
    assert found.after.ece < found.before.ece / 2
