"""Our engine and transformers' own ways as contenders, on the small committed model."""

from __future__ import annotations

import json
import random

import pytest

from benchmarks import ours
from benchmarks.models import ENDS, BenchModel, committed
from benchmarks.protocol import Job, Run, Task, Workload
from benchmarks.rivals import hf
from benchmarks.workloads import labels


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> BenchModel:
    return committed(tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="module")
def engine(model: BenchModel) -> Run:
    options = {"model": str(model.folder), "dtype": "float32", "threads": 1}
    return ours.load({**options, "runner": "packed", "rows": 4})[0]


@pytest.fixture(scope="module")
def transformers(model: BenchModel) -> Run:
    return hf.load({"model": str(model.folder), "dtype": "float32", "threads": 1})[0]


def workload() -> Workload:
    draw = random.Random(3)
    jobs = [
        Job(tuple(draw.randrange(16, 4096) for _ in range(length)), tokens)
        for length, tokens in ((5, 3), (20, 7), (9, 1))
    ]
    return Workload("small", tuple(jobs))


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        ("arrival", {"batch": 2}),
        ("sorted", {"batch": 2}),
        ("continuous", {"batch": 2, "step_tokens": 64}),
    ],
)
def test_each_way_of_transformers_answers_every_row(
    transformers: Run, kind: str, settings: dict[str, int]
) -> None:
    answer = transformers(Task(kind, workload(), settings))
    assert (answer.rows, answer.tokens) == (3, 11)


def test_our_engine_brings_exactly_the_tokens_that_were_asked_for(engine: Run) -> None:
    answer = engine(Task("generate", workload()))
    assert (answer.rows, answer.tokens) == (3, 11)
    assert answer.figures["padded_share"] == 0.0


def test_scoring_picks_the_labels_that_single_forwards_pick(
    engine: Run, transformers: Run, model: BenchModel
) -> None:
    asked = labels(3, model.vocabulary, model.encode)
    assert engine(Task("score", asked)).picks == transformers(Task("per_label", asked)).picks
    assert engine(Task("mask", asked)).rows == 3


@pytest.mark.parametrize("busy", [False, True])
def test_chats_get_their_first_token_idle_and_busy(engine: Run, busy: bool) -> None:
    answer = engine(Task("express", workload(), {"chats": 2, "busy": busy}))
    assert set(answer.figures) == {"ttft_0", "ttft_1", "bulk_tokens_per_s"}
    assert (answer.figures["bulk_tokens_per_s"] > 0) is busy


def test_the_committed_model_never_ends_by_itself(model: BenchModel) -> None:
    for name, key in ENDS.items():
        assert json.loads((model.folder / name).read_text())[key] is None
