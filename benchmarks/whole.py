"""The whole service, HTTP to PostgreSQL, beside the bare engine on the same rows and model: each
has its job, and they run in turns of a few seconds."""

from __future__ import annotations

import contextlib
import random
import statistics
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
from transformers import AutoTokenizer

from benchmarks import workloads
from benchmarks.models import BenchModel
from benchmarks.ours import QUANTIZATION
from benchmarks.protocol import Job, Workload, save
from benchmarks.stack import Stack, stack
from benchmarks.turns import Side, take_turns
from benchmarks.usage import cpu_by_name, cpu_by_thread
from benchmarks.worker import Contender, Worker
from models.codec import TokenizerCodec

TOKENS = 58  #: of every answer: one job has one limit
LIMIT = 1_800.0  #: seconds for one job
TURN = 4.0  #: seconds
WARM_UP = 64  #: the most rows that are run first and not counted
ENGINE = "engine"


@dataclass(frozen=True, slots=True)
class Whole:
    """Tokens per second of each round, from the post to the job being complete, without the time
    in which the other side ran."""

    model: str
    dtype: str
    rows: int
    service: tuple[float, ...]
    bare: tuple[float, ...]
    accepted: float  #: seconds until the job was taken, median
    #: Seconds of one core for each row, by process, mean of the rounds; `ENGINE` are those threads
    #: of the worker that compute.
    spent: Mapping[str, float]

    @property
    def ratio(self) -> float:
        """Median of the quotients within rounds."""
        pairs = zip(self.service, self.bare, strict=True)
        return statistics.median(served / alone for served, alone in pairs)


def measure(
    model: BenchModel, dtype: str, rows: int, rounds: int, bare: Contender, folder: Path
) -> Whole:
    """Round by round, each side in turn. Raises ContenderFailed."""
    texts = _texts(model, rows)
    path = folder / model.name / f"whole-{rows}.json"
    save(_workload(model, texts), path)
    worker = Worker(bare, folder / "whole.log")
    served: list[float] = []
    alone: list[float] = []
    accepted: list[float] = []
    spent: Counter[str] = Counter()
    try:
        with _service(model, dtype, bare) as (up, client):  # while the other loads
            worker.ready()
            warm_up = min(WARM_UP, rows // 4)
            _job(client, texts[:warm_up])
            worker.run("generate", path, 0, warm_up, {})
            service = Side(lambda: accepted.append(_job(client, texts)), up.pause, up.resume)
            engine = Side(lambda: _bare(worker, path, rows), worker.pause, worker.resume)
            for _ in range(rounds):
                with _spending(up, bare.options["threads"], spent):
                    with_service, without = take_turns((service, engine), TURN)
                worker.pause()
                served.append(rows * TOKENS / with_service)
                alone.append(rows * TOKENS / without)
    finally:
        worker.close()
    return Whole(
        model.name,
        dtype,
        rows,
        tuple(served),
        tuple(alone),
        statistics.median(accepted),
        {name: seconds / rows / rounds for name, seconds in spent.items()},
    )


@contextlib.contextmanager
def _spending(up: Stack, threads: int, spent: Counter[str]) -> Iterator[None]:
    """Adds the processor seconds of the block. The engine's threads are the busiest ones."""
    before, threads_before = cpu_by_name(up.pids), cpu_by_thread(up.pids["worker"])
    yield
    after, threads_after = cpu_by_name(up.pids), cpu_by_thread(up.pids["worker"])
    busy = sorted(used - threads_before.get(id, 0.0) for id, used in threads_after.items())
    engine = sum(busy[-threads:])
    spent.update({name: used - before[name] for name, used in after.items()})
    spent.update({ENGINE: engine, "worker": -engine})


@contextlib.contextmanager
def _service(
    model: BenchModel, dtype: str, bare: Contender
) -> Iterator[tuple[Stack, httpx2.Client]]:
    settings = {
        **bare.environment,
        "PENSTOCK_MODEL__QUANTIZATION": QUANTIZATION[dtype],
        "PENSTOCK_MODEL__THREADS": str(bare.options["threads"]),
    }
    no_idle_ones = httpx2.Limits(max_keepalive_connections=0)  # a pause would end them
    with (
        stack(str(model.folder.resolve()), **settings) as up,
        httpx2.Client(base_url=up.url, timeout=120, limits=no_idle_ones) as client,
    ):
        yield up, client


def _job(client: httpx2.Client, texts: list[str]) -> float:
    """Until it is complete. Returns the seconds until it was accepted."""
    began = time.perf_counter()
    body = {"messages": texts, "max_tokens": TOKENS, "temperature": 0, "use_cache": False}
    posted = client.post("/batch-generate", json=body)
    posted.raise_for_status()
    accepted = time.perf_counter() - began
    url = f"/batch-result/{posted.json()['request_id']}"
    while time.perf_counter() - began < LIMIT:
        polled = client.get(url, params={"wait": 30, "limit": 1, "offset": 0})
        answer: dict[str, Any] = polled.raise_for_status().json()
        if answer["status"] not in ("queued", "processing"):
            _check(answer, len(texts))
            return accepted
    raise TimeoutError(f"the job did not end in {LIMIT:.0f} s")


def _bare(worker: Worker, path: Path, rows: int) -> None:
    """The same on the engine alone."""
    made = worker.run("generate", path, 0, rows, {}).tokens
    if made != rows * TOKENS:
        raise RuntimeError(f"the engine made {made} tokens instead of {rows * TOKENS}")


def _check(answer: dict[str, Any], rows: int) -> None:
    made = answer["usage"]["completion_tokens"]
    if answer["status"] != "completed" or made != rows * TOKENS:
        raise RuntimeError(f"{answer['status']} with {made} tokens instead of {rows * TOKENS}")


def _texts(model: BenchModel, rows: int) -> list[str]:
    """Words of log-normal lengths: as text, a prompt is about as long as in the mixed workload."""
    draw = random.Random(23)  # noqa: S311
    lengths = [len(job.prompt) for job in workloads.mixed(rows, model.vocabulary).jobs]
    words = [word for text in workloads.WORDS for word in text.split()]
    return [" ".join(draw.choice(words) for _ in range(length)) for length in lengths]


def _workload(model: BenchModel, texts: list[str]) -> Workload:
    """The very tokens that the service makes of the texts."""
    codec = TokenizerCodec(AutoTokenizer.from_pretrained(model.folder))
    jobs = [Job(codec.encode_chat([("user", text)]), TOKENS) for text in texts]
    return Workload(f"whole-{len(texts)}", tuple(jobs))
