"""One job through the API, measured: accepted, done, what it cost each process, and read back."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass

import httpx2

from benchmarks.stack import Stack
from benchmarks.usage import cpu_by_name, watching

LIMIT = 3_600.0  #: seconds for one job
PAGE = 5_000  #: the most that the API gives at once


@dataclass(frozen=True, slots=True)
class TimedJob:
    """Seconds, and by process MB and processor seconds, from the post to the job's end."""

    id: str
    rows: int
    accepted: float
    ended: float
    memory: dict[str, float]  #: peak
    processor: dict[str, float]

    @property
    def rows_per_s(self) -> float:
        return self.rows / self.ended

    @property
    def wall_us(self) -> float:
        """Microseconds of time for a row."""
        return self.ended / self.rows * 1e6

    @property
    def processor_us(self) -> float:
        """Microseconds of all processes' processor time for a row."""
        return sum(self.processor.values()) / self.rows * 1e6


def run(up: Stack, client: httpx2.Client, rows: int) -> TimedJob:
    """Post a job and wait for its end. Raises `RuntimeError` where a row failed."""
    body = _body(rows)
    before = cpu_by_name(up.pids)
    began = time.perf_counter()
    with watching(lambda: up.pids) as memory:
        id = _post(client, body)
        accepted = time.perf_counter() - began
        _await(client, id, rows)
        ended = time.perf_counter() - began
    after = cpu_by_name(up.pids)
    processor = {name: after[name] - before.get(name, 0.0) for name in after}
    return TimedJob(id, rows, accepted, ended, dict(memory), processor)


def _body(rows: int) -> bytes:
    prompts = [f"Row {n}: what is this about, and why?" for n in range(rows)]
    body = {"messages": prompts, "max_tokens": 8, "temperature": 0, "use_cache": False}
    return json.dumps(body).encode()


def _post(client: httpx2.Client, body: bytes) -> str:
    """Until it is accepted: the API gives up waiting for a store after 30 s, and the key finds what
    was stored meanwhile."""
    headers = {"content-type": "application/json", "Idempotency-Key": str(uuid.uuid4())}
    while True:
        posted = client.post("/batch-generate", content=body, headers=headers)
        if posted.status_code != httpx2.codes.SERVICE_UNAVAILABLE:
            return str(posted.raise_for_status().json()["request_id"])
        time.sleep(float(posted.headers["Retry-After"]))


def _await(client: httpx2.Client, id: str, rows: int) -> None:
    deadline = time.monotonic() + LIMIT
    while time.monotonic() < deadline:
        params = {"wait": 10, "offset": 0, "limit": 1}
        answer = client.get(f"/batch-result/{id}", params=params).raise_for_status().json()
        if answer["status"] != "processing":
            if answer["status"] != "completed" or answer["progress"]["completed"] != rows:
                raise RuntimeError(f"{answer['status']}: {answer['progress']}")
            return
    raise TimeoutError(f"the job did not end in {LIMIT:.0f} s")


@dataclass(frozen=True, slots=True)
class Reading:
    """All answers of a job read back: seconds, bytes, and the API's peak memory in MB."""

    how: str
    seconds: float
    bytes: int
    api_mb: float


def read_back(up: Stack, client: httpx2.Client, job: TimedJob) -> list[Reading]:
    """Page by page, then as one answer that streams; nothing of it is kept here."""
    ways = {"in pages": _pages(client, job), "as one answer": _whole(client, job)}
    readings = []
    for how, pieces in ways.items():
        began = time.perf_counter()
        with watching(lambda: {"api": up.pids["api"]}) as memory:
            size = sum(pieces)
            seconds = time.perf_counter() - began
        readings.append(Reading(how, seconds, size, memory["api"]))
    return readings


def _pages(client: httpx2.Client, job: TimedJob) -> Iterator[int]:
    for offset in range(0, job.rows, PAGE):
        params = {"offset": offset, "limit": PAGE}
        answer = client.get(f"/batch-result/{job.id}", params=params).raise_for_status()
        if None in answer.json()["responses"]:
            raise RuntimeError(f"there is no answer somewhere after {offset}")
        yield len(answer.content)


def _whole(client: httpx2.Client, job: TimedJob) -> Iterator[int]:
    with client.stream("GET", f"/batch-result/{job.id}") as answer:
        answer.raise_for_status()
        for piece in answer.iter_bytes():
            yield len(piece)
