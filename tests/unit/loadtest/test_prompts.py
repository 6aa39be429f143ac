"""What is asked in a load test."""

from __future__ import annotations

import statistics
from itertools import islice
from pathlib import Path

import pytest

from penstock.errors import InvalidRequest
from penstock.loadtest.plan import Plan
from penstock.loadtest.prompts import Lengths, drawn, of_file


def test_lengths_are_spread_around_their_means() -> None:
    prompts = list(islice(drawn(Lengths(100, 50, 0.6), seed=1), 2_000))

    words = [len(prompt.text.split()) - 6 for prompt in prompts]
    limits = [prompt.max_tokens for prompt in prompts]
    assert statistics.mean(words) == pytest.approx(100, rel=0.05)
    assert statistics.mean(limits) == pytest.approx(50, rel=0.05)
    assert min(words) < 50 < 200 < max(words)
    assert len({prompt.text[:12] for prompt in prompts}) == 2_000


def test_without_spread_all_are_the_same_and_a_seed_repeats_them() -> None:
    first, second = (list(islice(drawn(Lengths(7, 5, 0), seed=3), 4)) for _ in range(2))

    assert first == second
    assert {len(prompt.text.split()) for prompt in first} == {13}
    assert {prompt.max_tokens for prompt in first} == {5}


def test_a_file_is_asked_over_and_over(tmp_path: Path) -> None:
    lines, objects = tmp_path / "p.txt", tmp_path / "p.jsonl"
    lines.write_text("one\n\ntwo\n")
    objects.write_text('"one"\n{"prompt": "two"}\n')

    for file in (lines, objects):
        prompts = islice(of_file(file, Lengths(), 0), 3)
        assert [prompt.text for prompt in prompts] == ["one", "two", "one"]


@pytest.mark.parametrize("text", ["", "not json", '{"text": 1}', "[1]"])
def test_a_file_without_prompts_is_refused(tmp_path: Path, text: str) -> None:
    file = tmp_path / "p.jsonl"
    file.write_text(text)

    with pytest.raises(InvalidRequest, match="prompts"):
        of_file(file, Lengths(), 0)


@pytest.mark.parametrize(
    "plan", [Plan(concurrency=0), Plan(rate=0), Plan(duration=float("nan")), Plan(count=0)]
)
def test_a_plan_out_of_bounds_is_refused_by_name(plan: Plan) -> None:
    with pytest.raises(InvalidRequest, match="--"):
        plan.check()
