"""Measures the whole service over HTTP: storm, chat under load, kill -9.

Prints one line of JSON per measurement. Knows the API and process ids only.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import statistics
import sys
import time
from collections import Counter
from collections.abc import Iterator
from typing import Any

import httpx2
import typer

from benchmarks.stack import Stack, stack
from storage import overview
from storage.database import Database

app = typer.Typer(add_completion=False, no_args_is_help=True, help=__doc__)
LIMIT = 600.0  # seconds for one job


def emit(**figures: object) -> None:
    sys.stdout.write(json.dumps(figures) + "\n")
    sys.stdout.flush()


def prompts(count: int) -> list[str]:
    return [f"Row {n}: what is this about, and why?" for n in range(count)]


def post(client: httpx2.Client, count: int, **fields: object) -> str:
    body = {
        "messages": prompts(count),
        "max_tokens": 8,
        "temperature": 0,
        "use_cache": False,
        **fields,
    }
    answer = client.post("/batch-generate", json=body)
    answer.raise_for_status()
    return str(answer.json()["request_id"])


def wait(client: httpx2.Client, job: str) -> dict[str, Any]:
    """Poll until finished, through outages; the last answer without its rows."""
    deadline = time.monotonic() + LIMIT
    while time.monotonic() < deadline:
        try:
            answer = client.get(f"/batch-result/{job}", params={"wait": 5, "limit": 1, "offset": 0})
            if answer.status_code == 200 and answer.json()["status"] not in (
                "queued",
                "processing",
            ):
                return dict(answer.json())
        except httpx2.HTTPError:
            pass
        time.sleep(0.05)
    raise SystemExit(f"{job} did not end in {LIMIT:.0f} s")


BAD_BODIES: list[bytes] = [
    b"",
    b"{",
    b"[]",
    b'{"messages": []}',
    b'{"messages": "x"}',
    b'{"messages": ["a"], "temperature": NaN}',
    b'{"messages": ["a"], "temperature": 9}',
    b'{"messages": ["a"], "max_tokens": 0}',
    b'{"messages": ["a"], "nonsense": 1}',
    b'{"messages": ["a"], "model": "no-such-model"}',
    b"\xff\xfe\x00",
    b"[" * 20_000,
    b'{"messages": ["a"], "metadata": {"a": "\\u0000"}}',
]
MIXED = ["good", "", "bad \x00 byte", "x" * 600_000, 7, None, [], [{"role": "user"}], "good too"]


async def _one_client(client: httpx2.AsyncClient, until: float, seed: int, log: list[Any]) -> None:
    choose = random.Random(seed)  # noqa: S311
    while time.monotonic() < until:
        kind = choose.random()
        if kind < 0.4:
            body = choose.choice(BAD_BODIES)
        elif kind < 0.5:
            body = json.dumps({"messages": MIXED, "max_tokens": 4}).encode()
        else:
            body = json.dumps({"messages": prompts(choose.randint(1, 20))}).encode()
        headers = {"content-type": "application/json"}
        try:
            answer = await client.post("/batch-generate", content=body, headers=headers)
        except httpx2.HTTPError as error:
            log.append((type(error).__name__, None))
            continue
        job = answer.json().get("request_id") if answer.status_code == 202 else None
        log.append((answer.status_code, job))


@app.command()
def storm(clients: int = 200, seconds: float = 30) -> None:
    """Many clients post good and bad bodies at once; every accepted job must end."""
    log: list[Any] = []

    async def run(up: Stack) -> None:
        limits = httpx2.Limits(max_connections=clients)
        async with httpx2.AsyncClient(base_url=up.url, timeout=60, limits=limits) as client:
            until = time.monotonic() + seconds
            await asyncio.gather(
                *(_one_client(client, until, seed, log) for seed in range(clients))
            )

    with stack() as up:
        asyncio.run(run(up))
        jobs = [job for _, job in log if job]
        with httpx2.Client(base_url=up.url, timeout=60) as client:
            while client.get("/stats").json()["queue_depth"]:
                time.sleep(0.5)
            ended = Counter(wait(client, job)["status"] for job in jobs)
        emit(
            clients=clients,
            seconds=seconds,
            answers=dict(Counter(str(status) for status, _ in log)),
            jobs=len(jobs),
            ended=dict(ended),
            lost=len(jobs) - ended.total(),
        )


def _chats(client: httpx2.Client, count: int) -> list[float]:
    times = []
    for _ in range(count):
        began = time.perf_counter()
        body = {
            "message": "What does json.dumps do?",
            "max_tokens": 40,
            "temperature": 0,
            "use_cache": False,
        }
        client.post("/chat", json=body).raise_for_status()
        times.append(time.perf_counter() - began)
    return times


@app.command()
def chat(model: str = "assets/penstock-tiny", rows: int = 3000, count: int = 15) -> None:
    """Seconds of a chat on an idle engine, and while a job fills it."""
    with stack(model) as up, httpx2.Client(base_url=up.url, timeout=120) as client:
        _chats(client, 2)  # warm
        idle = _chats(client, count)
        job = post(client, rows, max_tokens=64)
        while client.get(f"/batch-result/{job}").json()["progress"]["completed"] == 0:
            time.sleep(0.1)
        busy = _chats(client, count)
        state = client.get(f"/batch-result/{job}").json()
        emit(
            idle_s=round(statistics.median(idle), 3),
            busy_s=round(statistics.median(busy), 3),
            busy_worst_s=round(max(busy), 3),
            ratio=round(statistics.median(busy) / statistics.median(idle), 2),
            job_then=state["status"],
            job_done_rows=state["progress"]["completed"],
        )
        client.post(f"/batch-generate/{job}/cancel")


def _victims(names: str) -> Iterator[str]:
    yield from (name.strip() for name in names.split(","))


@app.command()
def kill(
    names: str = "worker,api,dispatcher,redis,postgres", rows: int = 6000, speed: float = 200
) -> None:
    """kill -9 of each process in turn, each while a job of its own runs."""
    setting = {"PENSTOCK_MODEL__FAKE_TOKENS_PER_SECOND": str(speed)}
    for victim in _victims(names):
        with stack("fake", **setting) as up, httpx2.Client(base_url=up.url, timeout=60) as client:
            job = post(client, rows)
            while client.get(f"/batch-result/{job}").json()["progress"]["completed"] < rows // 10:
                time.sleep(0.05)
            began = time.perf_counter()
            os.kill(up.pids[victim], signal.SIGKILL)
            state = wait(client, job)
            emit(
                killed=victim,
                rows=rows,
                status=state["status"],
                progress=state["progress"],
                seconds_after_kill=round(time.perf_counter() - began, 1),
                repeated=repeated(up, job),
            )


def repeated(up: Stack, job: str) -> int:
    """Prompts' admissions beyond the first."""
    database = Database(up.state["database_url"])
    with database.begin() as conn:
        count = overview.repeats(conn, job)
    database.close()
    return count


if __name__ == "__main__":
    app()
