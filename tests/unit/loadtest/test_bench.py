"""`penstock bench` against a server on a real port: what it sends, counts, shows and writes."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from penstock.cli import app
from penstock.errors import PenstockError
from penstock.loadtest.plan import Plan
from penstock.loadtest.prompts import Lengths, Prompt, drawn
from penstock.loadtest.runner import LoadTest
from penstock.loadtest.samples import Heard
from penstock.loadtest.summary import summarize
from tests.support.service import Service, listen, serving
from tests.unit.loadtest.server import OpenAIServer


@pytest.fixture
def server() -> Iterator[OpenAIServer]:
    with serving(OpenAIServer(), listen()) as running:
        yield running


def bench(url: str, *options: str) -> Result:
    quick = ("--warmup", "1", "--prompt-words", "5", "--concurrency", "2")
    return CliRunner().invoke(app, ["bench", url, *quick, *options])


def figures(server_url: str, file: Path, *options: str) -> dict[str, object]:
    done = bench(server_url, "--json", str(file), *options)
    assert done.exit_code == 0, done.output
    summary: dict[str, object] = json.loads(file.read_text())["summary"]
    return summary


def test_times_tokens_and_counts_of_a_paced_server(server: OpenAIServer, tmp_path: Path) -> None:
    server.first, server.gap = 0.05, 0.02

    found = figures(server.url, tmp_path / "f.json", "--count", "6", "--max-tokens", "9")

    assert (found["requests"], found["answered"], found["errors"]) == (6, 6, {})
    assert (found["prompt_tokens"], found["output_tokens"]) == (42, 24)
    assert found["estimated"] is False
    assert server.most_open == 2
    first, latency, each = (found[name] for name in ("time_to_first", "latency", "time_per_token"))
    assert isinstance(first, dict)
    assert isinstance(latency, dict)
    assert isinstance(each, dict)
    # What the server's own pauses add up to is the least that can be measured.
    assert 0.05 <= first["p50"] < latency["p50"]
    assert latency["p50"] >= 0.05 + 3 * 0.02
    assert each["p50"] >= 2 * 0.02 / 3
    assert len(server.asked) == 7
    assert server.asked[0].keys() >= {"model", "messages", "max_tokens", "stream"}
    assert server.asked[0]["model"] == "small"


def test_errors_are_counted_by_kind_and_tokens_said_to_be_estimated(
    server: OpenAIServer, tmp_path: Path
) -> None:
    server.usage = False
    server.faults = [500, 429, 500]

    done = bench(server.url + "/v1", "--count", "5", "--warmup", "0", "--model", "other")

    assert "5 in" in done.output
    assert "2 answered" in done.output
    assert re.search(r"2 times: http 500\s+error +1 times: http 429", done.output)
    assert "estimated" in done.output
    assert "time to first token" in done.output
    assert server.asked[0]["model"] == "other"


def test_a_cut_stream_and_a_slow_one_are_errors(server: OpenAIServer, tmp_path: Path) -> None:
    server.cut = True
    cut = figures(server.url, tmp_path / "f.json", "--count", "2", "--warmup", "0")
    server.cut, server.first = False, 30
    slow = figures(
        server.url, tmp_path / "f.json", "--count", "2", "--warmup", "0", "--timeout", "0.2"
    )

    assert (cut["errors"], slow["errors"]) == ({"cut off": 2}, {"timeout": 2})


def test_penstocks_own_api_is_found_and_measured(tmp_path: Path) -> None:
    with serving(Service(), listen()) as service:
        done = bench(service.url, "--count", "3")
        jobs = figures(
            service.url, tmp_path / "f.json", "--kind", "job", "--count", "2", "--job-size", "4"
        )

    assert "/chat/stream" in done.output
    assert "3 answered" in done.output
    assert (jobs["answered"], jobs["output_tokens"]) == (2, 4)
    assert [len(job.messages) for job in service.jobs.values()] == [4, 4, 4]


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--rate", "0"], "--rate"),
        (["--kind", "job", "--api", "openai"], "Penstock's own API"),
        (["--spread", "9"], "--spread"),
        (["--plot", "out.txt"], "--plot"),
    ],
)
def test_what_cannot_be_done_is_said_at_once(
    server: OpenAIServer, options: list[str], sentence: str
) -> None:
    error = bench(server.url, *options).exception

    assert isinstance(error, PenstockError)
    assert sentence in error.message


def test_a_server_that_wants_a_key_gets_the_one_of_the_environment(
    server: OpenAIServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.key = "secret"
    refused = bench(server.url, "--count", "1").exception
    monkeypatch.setenv("OPENAI_API_KEY", "secret")

    assert isinstance(refused, PenstockError)
    assert "key" in refused.message
    assert bench(server.url, "--count", "1").exit_code == 0


def test_a_server_that_answers_nothing_is_a_sentence(server: OpenAIServer) -> None:
    server.faults = [500] * 9
    failed = bench(server.url, "--count", "1").exception
    absent = bench("http://127.0.0.1:9").exception

    assert isinstance(failed, PenstockError)
    assert failed.message == "Every request of the warm-up failed: http 500."
    assert isinstance(absent, PenstockError)
    assert "No answer from" in absent.message


def test_the_picture_is_drawn_only_when_asked_for(server: OpenAIServer, tmp_path: Path) -> None:
    program = f"""
import sys
from typer.testing import CliRunner
from penstock.cli import app
for plot in ([], ["--plot", "out.png"]):
    options = ["bench", {server.url!r}, "--count", "2", "--warmup", "0", *plot]
    assert CliRunner().invoke(app, options).exit_code == 0
    print("matplotlib" in sys.modules)
"""
    done = _python(program, tmp_path)

    assert done == "False\nTrue\n"
    assert (tmp_path / "out.png").read_bytes().startswith(b"\x89PNG")


def test_without_matplotlib_the_terminal_has_to_do(
    server: OpenAIServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)

    done = bench(server.url, "--count", "2", "--plot", str(tmp_path / "out.png"))

    assert done.exit_code == 0
    assert "█" in done.output
    assert "matplotlib is not installed" in done.output


def _python(program: str, folder: Path) -> str:
    return subprocess.run(
        [sys.executable, "-c", program], check=True, capture_output=True, text=True, cwd=folder
    ).stdout


class Slow:
    """A target that answers when it is told to."""

    def __init__(self) -> None:
        self.gate = asyncio.Event()
        self.begun = asyncio.Event()
        self.asked = 0

    async def ask(self, prompts: Sequence[Prompt], heard: Heard) -> None:
        self.asked += 1
        self.begun.set()
        await self.gate.wait()
        heard.piece()


def test_a_server_that_stalls_cannot_hide_behind_requests_that_were_not_sent() -> None:
    """One stall of 0.3 s at 100 requests a second: with one request open at a time, all that were
    due meanwhile have waited, too."""

    async def go() -> LoadTest:
        target = Slow()
        plan = Plan(rate=100, concurrency=1, count=20, duration=30, warmup=0)
        test = LoadTest(plan, target, drawn(Lengths(), 0))
        asyncio.get_running_loop().call_later(0.3, target.gate.set)
        await test.run()
        return test

    samples = asyncio.run(go()).samples

    assert len(samples) == 20
    assert sum(sample.latency > 0.05 for sample in samples) >= 15
    dues = [sample.due for sample in samples]
    assert dues == sorted(dues)


def test_what_was_due_and_found_no_room_is_counted() -> None:
    async def go() -> LoadTest:
        target = Slow()
        plan = Plan(rate=200, concurrency=2, duration=0.2, timeout=0.4, warmup=0)
        test = LoadTest(plan, target, drawn(Lengths(), 0))
        await test.run()
        return test

    test = asyncio.run(go())

    assert summarize(test.samples).errors == {"timeout": 2}
    assert test.late > 10


def test_a_run_that_is_stopped_keeps_what_it_has() -> None:
    async def go() -> LoadTest:
        target = Slow()
        target.gate.set()
        test = LoadTest(Plan(concurrency=2, count=1, warmup=0), target, drawn(Lengths(), 0))
        await test.run()
        target.gate.clear()
        target.begun.clear()
        again = LoadTest(Plan(concurrency=2, warmup=0), target, drawn(Lengths(), 0))
        again.samples = test.samples
        running = asyncio.create_task(again.run())
        await target.begun.wait()
        again.stop.set()
        await asyncio.wait_for(running, 10)
        return again

    assert len(asyncio.run(go()).samples) == 1


def test_ctrl_c_shows_what_was_measured(server: OpenAIServer) -> None:
    server.tokens = 1
    asked: list[object] = []
    real = server.asked

    class Stopping(list[dict[str, object]]):
        def append(self, item: dict[str, object]) -> None:
            asked.append(item)
            if len(asked) == 10:
                os.kill(os.getpid(), signal.SIGINT)

    server.asked = Stopping(real)

    done = bench(server.url, "--duration", "60")

    assert done.exit_code == 130, done.output
    assert "interrupted" in done.output
    assert "latency" in done.output
