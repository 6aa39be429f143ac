"""Ratios, what must hold, and the documents made of them."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from rich.console import Console

from benchmarks import picture
from benchmarks.protocol import Answer
from benchmarks.report import Report, document, show
from benchmarks.rounds import Results, Sample
from benchmarks.summary import Requirement, Summary, ratios, requirements
from benchmarks.whole import Whole

PLACE = ("random-40m", "float32")


def sample(cell: str, contender: str, rate: float, number: int = 0, **figures: float) -> Sample:
    """A run of 100 rows of one token each."""
    answer = Answer(100 / rate, 100, 100, figures)
    return Sample(*PLACE, cell, contender, number, answer)


def summary(*samples: Sample) -> Summary:
    return Summary(Results(list(samples)))


def need(found: Summary, key: str) -> Requirement:
    return next(one for one in requirements(found) if one.key == f"{key}.random-40m.float32")


def test_a_rate_is_the_median_of_the_rounds_with_its_spread() -> None:
    rates = (90, 110, 100)
    found = summary(*(sample("mixed", "naive", rate, n) for n, rate in enumerate(rates)))
    spread = found.rate(PLACE, "mixed", "naive")
    assert spread is not None
    assert (spread.middle, spread.low, spread.high) == pytest.approx((100, 90, 110))
    assert (spread.rounds, spread.rows) == (3, 100)


def test_ours_is_compared_with_the_better_of_vllm() -> None:
    found = summary(
        sample("mixed", "packed", 1_000),
        sample("mixed", "vllm-32", 700),
        sample("mixed", "vllm-64", 800),
        sample("mixed", "naive", 100),
    )
    assert need(found, "mixed.packed/vllm").measured == 1.25
    assert need(found, "mixed.packed/vllm").holds
    assert need(found, "mixed.packed/naive").measured == 10


def test_a_round_in_which_the_machine_is_slow_is_compared_with_itself() -> None:
    rounds = [(1_000, 800), (500, 400), (1_100, 900)]
    found = summary(
        *(
            sample("mixed", name, rate, number)
            for number, pair in enumerate(rounds)
            for name, rate in zip(("packed", "vllm-64"), pair, strict=True)
        ),
        sample("mixed", "naive", 125, 1),
    )
    assert need(found, "mixed.packed/vllm").measured == 1.25
    assert need(found, "mixed.packed/naive").measured == 4


def test_parts_of_the_rows_are_compared_all_together() -> None:
    """Easy rows in two rounds and hard ones in the third: no one round stands for all."""
    ours = [Answer(1.0, 90, 900), Answer(1.1, 90, 900), Answer(0.9, 90, 900)]
    parts = [Answer(1.0, 30, 300), Answer(1.0, 30, 300), Answer(7.0, 30, 300)]
    found = summary(
        *(Sample(*PLACE, "mixed", "packed", n, one) for n, one in enumerate(ours)),
        Sample(*PLACE, "mixed", "packed", 3, Answer(9.0, 90, 900)),  # naive ran three rounds
        *(Sample(*PLACE, "mixed", "naive", n, one) for n, one in enumerate(parts)),
    )
    spread = found.rate(PLACE, "mixed", "naive")
    assert spread is not None
    assert (spread.low, spread.middle, spread.high) == (300 / 7, 100, 300)
    assert need(found, "mixed.packed/naive").measured == pytest.approx(9)


def test_a_ratio_without_a_rival_is_neither_held_nor_broken() -> None:
    found = summary(sample("mixed", "packed", 900))
    assert need(found, "mixed.packed/vllm").holds is None


def test_chats_are_compared_by_the_median_first_token() -> None:
    found = summary(
        sample("express", "packed-idle", 1, ttft_0=0.01, ttft_1=0.02, ttft_2=0.9),
        sample("express", "packed-busy", 1, ttft_0=0.05, ttft_1=0.05, ttft_2=0.05),
    )
    assert need(found, "express.busy/idle").measured == pytest.approx(2.5)
    assert need(found, "express.busy/idle").holds is False


def test_growth_compares_the_most_rows_with_256() -> None:
    found = summary(
        sample("growth-64", "packed", 50, rss_mb=900),
        sample("growth-256", "packed", 100, rss_mb=1_000),
        sample("growth-4096", "packed", 95, rss_mb=1_050),
    )
    assert need(found, "growth.time").measured == pytest.approx(100 / 95)
    assert need(found, "growth.memory").measured == pytest.approx(1.05)


def test_growth_in_a_quick_run_compares_the_two_sizes_that_it_has() -> None:
    found = summary(sample("growth-64", "packed", 50), sample("growth-128", "packed", 80))
    assert need(found, "growth.time").measured == pytest.approx(50 / 80)


def test_labels_are_the_same_when_every_prompt_picks_alike_whatever_part_was_run() -> None:
    scored = Answer(1.0, 4, 0, picks=(0, 1, 2, 3))
    parts = [Answer(1.0, 3, 0, picks=picks) for picks in ((0, 1, 2), (3, 0, 7))]
    found = summary(
        Sample(*PLACE, "labels", "packed-score", 0, scored),
        *(Sample(*PLACE, "labels", "per-label", n, part) for n, part in enumerate(parts)),
    )
    assert found.same_picks(PLACE) == (5 / 6, 6)


def test_reads_are_told_as_a_multiple_of_need() -> None:
    found = summary(sample("mixed", "torch", 1, padded_share=0.0, padded_share_keys=0.2))
    assert need(found, "padding.reads.torch").measured == pytest.approx(1.25)


def test_the_documents_show_rates_and_reasons(tmp_path: Path) -> None:
    results = Results(
        [sample("mixed", "packed", 900), sample("mixed", "naive", 100)],
        skipped={"llama": "no compiler | here"},
    )
    found = Summary(results)
    needs = requirements(found)
    whole = [Whole("penstock-tiny", "bfloat16", 64, (95.0,), (100.0,), 0.1, {"engine": 0.004})]
    made = Report({"cores": "2"}, "--quick", 1.0, results, found, needs, whole)
    text = document(made)
    assert "| naive: arrival order, batch 8 | 100.0 | 100.0 to 100.0 | 1 of 100 | 1.00 |" in text
    assert "no compiler / here" in text
    assert "| 0.950 |" in text
    assert "| penstock-tiny | 4.00 | 0.00 |" in text
    screen = io.StringIO()
    show(made, Console(file=screen, width=200))
    assert "left out: llama: no compiler | here" in screen.getvalue()
    assert ratios(needs)["mixed.packed/naive.random-40m.float32"] == 9.0
    picture.draw(found, tmp_path)
    assert all((tmp_path / f"results-{theme}.png").stat().st_size for theme in ("light", "dark"))
