"""`serve`: the process, its port, its refusals and its end."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import httpx2
import pytest

from api.app import serve
from penstock.errors import StackError
from penstock.settings import Settings
from tests.contract.support import until

SCRIPT = "from api.app import serve; from penstock.settings import Settings; serve(Settings())"


@contextmanager
def server(database_url: str, redis_url: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A process on a free port, and where it listens."""
    environment = {
        **os.environ,
        "PENSTOCK_DATABASE__URL": database_url,
        "PENSTOCK_BROKER__URL": redis_url,
        "PENSTOCK_API__PORT": "0",
        "PENSTOCK_MODEL__NAME": "fake",
        "PENSTOCK_LOG__FORMAT": "json",
    }
    process = subprocess.Popen(
        [sys.executable, "-c", SCRIPT], env=environment, stderr=subprocess.PIPE, text=True
    )
    try:
        assert process.stderr is not None
        said = ""
        while not (found := re.search(r'"port": (\d+)', said)):
            line = process.stderr.readline()
            assert line, said
            said += line
        assert "no keys are set" in said
        yield process, f"http://127.0.0.1:{found[1]}"
    finally:
        process.kill()
        process.wait()
        assert process.stderr is not None
        process.stderr.close()


def test_it_serves_on_a_free_port_and_ends_in_peace(database_url: str, redis_url: str) -> None:
    with server(database_url, redis_url) as (process, url):
        posted = httpx2.post(f"{url}/batch-generate", json={"messages": ["a"]}, timeout=20)
        assert posted.status_code == 202
        job = posted.json()["request_id"]
        with httpx2.stream("GET", f"{url}/healthz", timeout=20) as answer:
            assert "Server" not in answer.headers
        poll = subprocess.Popen(
            [
                sys.executable,
                "-c",
                f"import httpx2; print(httpx2.get('{url}/batch-result/{job}?wait=60',"
                " timeout=60).json()['status'])",
            ],
            stdout=subprocess.PIPE,
            text=True,
        )
        _wait_for_waiter(url)
        process.send_signal(signal.SIGTERM)

        # A long poll does not hold the end up, and is answered all the same.
        assert poll.communicate(timeout=20)[0].strip() == "processing"
        assert process.wait(timeout=20) == 0


def _wait_for_waiter(url: str) -> None:
    def arrived() -> bool | None:
        metrics = httpx2.get(f"{url}/metrics", timeout=20).text
        return ("penstock_waiting_clients 1.0" in metrics) or None

    assert until(arrived)


def test_it_refuses_a_public_address_without_keys() -> None:
    with pytest.raises(StackError, match="only with keys"):
        serve(_settings(host="0.0.0.0"))


def test_it_refuses_a_port_that_is_taken(database_url: str, redis_url: str) -> None:
    with server(database_url, redis_url) as (_, url):
        port = int(url.rsplit(":", 1)[1])
        with pytest.raises(StackError, match=f"cannot listen on 127.0.0.1:{port}"):
            serve(_settings(port=port))


def _settings(**api: object) -> Settings:
    return Settings.model_validate(
        {
            "database": {"url": "postgresql://nobody@127.0.0.1:1/nothing"},
            "broker": {"url": "redis://127.0.0.1:1/0"},
            "api": api,
        }
    )
