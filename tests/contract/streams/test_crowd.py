"""A hundred streams and a hundred sockets beside a job: all complete, in order, and their own."""

from __future__ import annotations

import asyncio
import json
import re
import sys
from pathlib import Path

import httpx2
import pytest
from websockets.asyncio.client import connect

from api.marks import parse_mark
from storage.database import Database
from tests.contract.support import until
from tests.support.events import Event, read_events, said
from tests.support.workers import TIMING, Jobs, Processes

CLIENTS = 100  # of either kind
QUESTIONS = 2  # on each socket
PROMPTS = 2_000  # of the job beside them


def _question(kind: str, number: int) -> str:
    return f"{kind} {number} " + " ".join(f"w{number}.{at}" for at in range(6))


def _body(question: str) -> dict[str, object]:
    return {"message": question, "temperature": 0}


async def _streamed(client: httpx2.AsyncClient, number: int) -> None:
    question = _question("stream", number)
    async with client.stream("POST", "/chat/stream", json=_body(question)) as answer:
        assert answer.status_code == 200, await answer.aread()
        lines = [line async for line in answer.aiter_lines()]
    events = list(read_events(lines))
    assert (events[0].type, events[-1].type) == ("start", "end")
    assert said(events) == f"echo: {question}"
    marks = [parse_mark(event.id or "") for event in events[1:-1]]
    assert [mark.offset for mark in marks] == sorted({mark.offset for mark in marks})


async def _asked(url: str, number: int) -> None:
    async with connect(f"{url.replace('http', 'ws')}/ws/chat/user/{number}") as socket:
        for turn in range(QUESTIONS):
            question = _question(f"socket{turn}", number)
            await socket.send(json.dumps(_body(question)))
            events: list[Event] = []
            while not events or events[-1].type not in ("end", "error"):
                events.append(Event(None, None, json.loads(await socket.recv())))
            assert (events[0].type, events[-1].type) == ("start", "end")
            assert said(events) == f"echo: {question}"


async def _crowd(url: str) -> None:
    limits = httpx2.Limits(max_connections=CLIENTS)
    async with (
        httpx2.AsyncClient(base_url=url, timeout=80, limits=limits) as client,
        asyncio.timeout(90),
        asyncio.TaskGroup() as group,
    ):
        for number in range(CLIENTS):
            group.create_task(_streamed(client, number))
            group.create_task(_asked(url, number))


def _memory(process: int) -> dict[str, int]:
    """MB that a process has now, and had at most."""
    lines = Path(f"/proc/{process}/status").read_text().splitlines()
    found = dict(line.split(":", 1) for line in lines)
    return {name: int(found[name].split()[0]) // 1024 for name in ("VmRSS", "VmHWM")}


@pytest.mark.slow
def test_a_hundred_streams_and_a_hundred_sockets_beside_a_job(
    database: Database,
    database_url: str,
    redis_url: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    environment = {
        "PENSTOCK_DATABASE__URL": database_url,
        "PENSTOCK_BROKER__URL": redis_url,
        "PENSTOCK_MODEL__NAME": "fake",
        "PENSTOCK_MODEL__FAKE_TOKENS_PER_SECOND": "50",
        "PENSTOCK_MODEL__EXPRESS_ROWS": "32",
        "PENSTOCK_WORKER__SLOT": "crowd-0",
        "PENSTOCK_API__PORT": "0",
        "PENSTOCK_LOG__FORMAT": "json",
        **TIMING,
    }
    processes = Processes(environment, tmp_path)
    jobs = Jobs(database)
    try:
        api = processes.start("serve")
        processes.start("worker")
        url = until(lambda: _listening(processes.log_of(api)), 60)
        job = jobs.post(PROMPTS)
        before = _memory(api.pid)
        asyncio.run(_crowd(url))
        after = _memory(api.pid)
        metrics = httpx2.get(f"{url}/metrics", timeout=20).text
        until(lambda: jobs.finished(job) or None, 60)
    finally:
        processes.end()
    assert 'status="5xx"' not in metrics
    assert jobs.get(job).completed == PROMPTS
    with capsys.disabled():
        sys.stdout.write(
            f"\n{CLIENTS} streams and {CLIENTS} sockets: the API has {after['VmRSS']} MB, "
            f"at most {after['VmHWM']}; before them {before['VmRSS']}\n"
        )


def _listening(log: str) -> str | None:
    found = re.search(r'"port": (\d+)', log)
    return f"http://127.0.0.1:{found[1]}" if found else None
