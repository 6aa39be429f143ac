"""The prompts that every contender gets."""

from __future__ import annotations

import statistics
from pathlib import Path

import pytest

from benchmarks import workloads
from benchmarks.protocol import read, save


def test_mixed_lengths_have_the_means_that_are_said_and_no_longer_rows() -> None:
    jobs = workloads.mixed(256, 1000).jobs
    assert statistics.mean(len(job.prompt) for job in jobs) == pytest.approx(133, abs=1)
    assert statistics.mean(job.tokens for job in jobs) == pytest.approx(58, abs=1)
    assert max(len(job.prompt) for job in jobs) <= 512
    assert max(job.tokens for job in jobs) <= 256


def test_the_same_call_brings_the_same_prompts() -> None:
    assert workloads.mixed(64, 1000) == workloads.mixed(64, 1000)


def test_prompts_of_the_shared_workload_begin_alike_and_end_apart() -> None:
    workload = workloads.shared(8, 1000)
    assert len({job.prompt[: workload.shared] for job in workload.jobs}) == 1
    assert len({job.prompt[workload.shared :] for job in workload.jobs}) == 8
    assert {(len(job.prompt), job.tokens) for job in workload.jobs} == {(440, 8)}


def test_one_row_in_fifty_is_ten_times_as_long() -> None:
    jobs = workloads.tail(100, 1000).jobs
    assert sorted({(len(job.prompt), job.tokens) for job in jobs}) == [(50, 25), (500, 250)]
    assert sum(len(job.prompt) == 500 for job in jobs) == 2


def test_labels_are_eight_of_one_to_four_tokens_and_none_begins_another() -> None:
    def encode(text: str) -> list[int]:
        return [len(word) for word in text.split()]

    workload = workloads.labels(2, 1000, encode)
    choices = workload.jobs[0].choices
    assert sorted(map(len, choices)) == [1, 1, 2, 2, 3, 3, 4, 4]
    assert [tuple(encode(label)) for label in workload.labels] == list(choices)
    pairs = [(a, b) for a in workload.labels for b in workload.labels if a != b]
    assert not any(a.startswith(b) for a, b in pairs)


def test_a_tokenizer_without_labels_of_these_lengths_is_refused() -> None:
    with pytest.raises(ValueError, match="labels of these lengths"):
        workloads.labels(2, 1000, lambda text: [1])


def test_a_workload_survives_its_file(tmp_path: Path) -> None:
    workload = workloads.labels(3, 1000, lambda text: [len(word) for word in text.split()])
    save(workload, tmp_path / "some" / "labels.json")
    assert read(tmp_path / "some" / "labels.json") == workload


def test_a_part_goes_on_from_its_place_and_around_the_end() -> None:
    workload = workloads.mixed(5, 1000)
    assert workload.part(3, 4).jobs == (*workload.jobs[3:], *workload.jobs[:2])
    assert workload.part(10, 5).jobs == workload.jobs
