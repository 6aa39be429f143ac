"""Our own engine as a contender: the bare engine over a loaded runner, no service around it."""

from __future__ import annotations

import itertools
import json
import os
import random
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import psutil
import torch
import transformers

from batching.engine import Engine
from batching.requests import EngineConfig, EngineOutcome, EngineRequest
from benchmarks.protocol import Answer, Job, Run, Task, Workload, serve
from models.loader import LoadOptions
from models.loader import load as load_runner
from models.runner import Constraint, FinishReason, Runner, SamplingParams

WAIT = 3_600.0  #: seconds for one workload
QUANTIZATION: dict[str, Any] = {"float32": "fp32", "bfloat16": "bf16", "nf4": "int4"}
EXPRESS_TOKENS = 8
LONGEST_PAUSE = 0.2  #: seconds between two chats


@dataclass(slots=True)
class Collector:
    """Outcomes of some requests, by id, and a wait for the last of them."""

    expected: int
    outcomes: dict[str, EngineOutcome] = field(default_factory=dict)
    done: threading.Event = field(default_factory=threading.Event)

    def __call__(self, outcome: EngineOutcome) -> None:
        self.outcomes[outcome.id] = outcome
        if len(self.outcomes) == self.expected:
            self.done.set()

    def wait(self) -> list[EngineOutcome]:
        if not self.done.wait(WAIT):
            raise TimeoutError(f"{len(self.outcomes)} of {self.expected} rows ended")
        return list(self.outcomes.values())


class Contender:
    """One loaded runner. Every task gets an engine of its own, so nothing is cached before it."""

    def __init__(self, runner: Runner, rows: int | None = None) -> None:
        self._runner = runner
        self._rows = rows or runner.info.max_rows or EngineConfig().max_rows

    def run(self, task: Task) -> Answer:
        if task.kind == "express":
            return self._express(task)
        requests = [_request(task, n, job) for n, job in enumerate(task.workload.jobs)]
        engine = self.engine()
        try:
            seconds, outcomes = _run_all(engine, requests)
            figures = _figures(engine)
        finally:
            engine.stop()
        _check(task, outcomes)
        tokens = sum(outcome.completion_tokens for outcome in outcomes)
        return Answer(seconds, len(outcomes), tokens, figures, _picks(requests, outcomes))

    def engine(self) -> Engine:
        info, usual = self._runner.info, EngineConfig()
        config = EngineConfig(
            max_rows=self._rows,
            step_tokens=info.step_tokens or usual.step_tokens,
            kv_tokens=info.kv_tokens or usual.kv_tokens,
        )
        engine = Engine(self._runner, config)
        engine.start()
        return engine

    def _express(self, task: Task) -> Answer:
        """Time to the first token of chats, one after the other: on an idle engine, or while bulk
        rows fill it."""
        chats = task.workload.jobs[: task.settings["chats"]]
        engine = self.engine()
        began = time.perf_counter()
        times: list[float] = []
        try:
            if task.settings["busy"]:
                self._saturate(engine, task.workload)
            full, made = time.perf_counter(), engine.stats().tokens_out
            for number, (pause, job) in enumerate(zip(_pauses(len(chats)), chats, strict=True)):
                time.sleep(pause)
                times.append(_chat(engine, number, job))
            made = engine.stats().tokens_out - made - EXPRESS_TOKENS * len(chats)
            rate = made / (time.perf_counter() - full)
        finally:
            engine.stop()
        figures = {f"ttft_{n}": seconds for n, seconds in enumerate(times)}
        figures["bulk_tokens_per_s"] = rate
        return Answer(time.perf_counter() - began, len(chats), 0, figures)

    def _saturate(self, engine: Engine, workload: Workload) -> None:
        """Bulk rows that never end: for each that does another one comes. Returns once every row is
        taken."""
        jobs = itertools.cycle(workload.jobs)
        numbers = itertools.count()

        def another(outcome: EngineOutcome | None = None) -> None:
            if outcome is None or outcome.finish is FinishReason.LENGTH:  # not as it stops
                job = next(jobs)
                request = _generate(f"bulk-{next(numbers)}", "bulk", job, job.tokens)
                engine.submit(request, another)

        for _ in range(2 * self._rows):
            another()
        deadline = time.monotonic() + 60
        while engine.stats().running["bulk"] < self._rows:
            if time.monotonic() > deadline:
                raise TimeoutError("the engine did not fill")
            time.sleep(0.02)


def _run_all(
    engine: Engine, requests: Sequence[EngineRequest]
) -> tuple[float, list[EngineOutcome]]:
    collector = Collector(len(requests))
    began = time.perf_counter()
    for request in requests:
        engine.submit(request, collector)
    outcomes = collector.wait()
    return time.perf_counter() - began, outcomes


def _chat(engine: Engine, number: int, job: Job) -> float:
    collector = Collector(1)
    engine.submit(_generate(f"chat-{number}", "express", job, EXPRESS_TOKENS), collector)
    outcome = collector.wait()[0]
    if outcome.ttft is None:
        raise RuntimeError(f"the chat ended with {outcome.finish}: {outcome.message}")
    return outcome.ttft


def _pauses(count: int) -> list[float]:
    """Seconds before each chat, so that it comes at any moment of a step."""
    draw = random.Random(29)  # noqa: S311
    return [draw.uniform(0.0, LONGEST_PAUSE) for _ in range(count)]


def _generate(id: str, lane: str, job: Job, tokens: int) -> EngineRequest:
    sampling = SamplingParams(max_tokens=tokens, temperature=0)
    return EngineRequest(id, lane, job.prompt, sampling, group="bench")


def _request(task: Task, number: int, job: Job) -> EngineRequest:
    if task.kind == "score":
        sampling = SamplingParams(max_tokens=1, temperature=0)
        return EngineRequest(
            f"row-{number}", "bulk", job.prompt, sampling, choices=job.choices, group="bench"
        )
    if task.kind == "mask":
        constraint = Constraint("choices", json.dumps(list(task.workload.labels)))
        sampling = SamplingParams(max_tokens=64, temperature=0, constraint=constraint)
        return EngineRequest(f"row-{number}", "bulk", job.prompt, sampling, group="bench")
    return _generate(f"row-{number}", task.settings.get("lane", "bulk"), job, job.tokens)


def _check(task: Task, outcomes: Sequence[EngineOutcome]) -> None:
    """A fast wrong answer is none."""
    for outcome in outcomes:
        if outcome.finish in (FinishReason.ERROR, FinishReason.CANCELLED):
            raise RuntimeError(f"a row ended with {outcome.finish}: {outcome.message}")
    if task.kind == "generate":
        made = sum(outcome.completion_tokens for outcome in outcomes)
        if made != task.workload.tokens:
            raise RuntimeError(f"{made} tokens instead of {task.workload.tokens}")
    if task.kind == "mask" and any(o.text not in task.workload.labels for o in outcomes):
        raise RuntimeError("an answer under a mask is none of the labels")


def _picks(requests: Sequence[EngineRequest], outcomes: Sequence[EngineOutcome]) -> tuple[int, ...]:
    by_id = {outcome.id: outcome.scores for outcome in outcomes}
    scores = [by_id[request.id] for request in requests]
    return tuple(s.index(max(s)) for s in scores if s)


def _figures(engine: Engine) -> dict[str, float]:
    stats, memory = engine.stats(), psutil.Process().memory_info()
    return {
        "steps": stats.steps,
        "padded_share": stats.padded_share,
        "padded_share_keys": stats.padded_share_keys,
        "tokens_cached": stats.tokens_cached,
        "rss_mb": memory.rss / 1e6,
    }


def load(options: dict[str, Any]) -> tuple[Run, dict[str, str]]:
    """Options: `model` (a folder), `dtype`, `threads`, `runner`; also `rows`, `kv_tokens`."""
    runner = load_runner(
        LoadOptions(
            name=options["model"],
            quantization=QUANTIZATION[options["dtype"]],
            threads=options["threads"],
            runner=options["runner"],
            max_rows=options.get("rows"),
            kv_tokens=options.get("kv_tokens"),
            device=options.get("device", "cpu"),
        )
    )
    if runner.info.runner != options["runner"]:
        raise RuntimeError("; ".join(runner.info.notes))
    versions = {
        "transformers": transformers.__version__,
        "torch": str(torch.__version__),
        "notes": "; ".join(runner.info.notes),
        "native": os.environ.get("PENSTOCK_NATIVE", "1"),
    }
    return Contender(runner).run, versions


if __name__ == "__main__":
    serve(load, sys.argv[1:])
