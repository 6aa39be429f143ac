"""The whole stack as a user runs it: comes up, survives its parts, goes without a trace."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import socket
import stat
import subprocess
import sys
import sysconfig
from collections.abc import Callable
from functools import partial
from pathlib import Path

import psutil
import pytest

from tests.integration.stack.conftest import ROOT, Up, is_alive, until

pytestmark = pytest.mark.slow
Start = Callable[..., Up]


def tree(pid: int) -> list[int]:
    """The process and all below it."""
    process = psutil.Process(pid)
    return [pid, *(child.pid for child in process.children(recursive=True))]


def finish(up: Up, prompts: int = 70) -> None:
    answer = up.finish_job(up.post_job(prompts))
    assert answer["status"] == "completed"
    assert len(answer["responses"]) == prompts
    assert None not in answer["responses"]


def test_a_job_runs_and_ctrl_c_leaves_nothing_behind(up: Start) -> None:
    stack = up()
    facts = stack.facts
    pids = tree(facts["pid"])
    finish(stack)
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in stack.data.iterdir()}

    status = stack.stop(signal.SIGINT)

    printed = stack.output()
    assert status == 0
    assert set(facts["children"]) == {"postgres", "redis", "api", "dispatcher", "worker", "flower"}
    assert len(pids) > len(facts["children"])
    assert [pid for pid in pids if is_alive(pid)] == []
    assert f"{facts['api_url']}/docs" in printed
    assert facts["flower_url"] in printed
    assert "Traceback" not in printed
    assert not (stack.data / "stack.json").exists()
    assert all(mode & 0o007 == 0 for mode in modes.values()), modes


def test_a_stack_in_the_way_is_a_sentence(up: Start) -> None:
    first = up()
    port = first.facts["ports"]["api"]

    second = up()
    other = first.data.parent / "other"
    third = Up(other, "--port", str(port))

    assert second.process.wait(timeout=30) == 1
    words = second.output()
    assert f"{first.data} is in use by another `penstock up`" in words
    assert third.process.wait(timeout=30) == 1
    assert f"Port {port} on 127.0.0.1 cannot be used" in third.output()
    assert len(words.splitlines()) == 1


def test_every_child_may_be_killed(up: Start) -> None:
    stack = up()
    names = ["postgres", "redis", "api", "dispatcher", "worker", "flower"]
    for name in names:
        before = stack.facts["children"][name]
        os.kill(before, signal.SIGKILL)
        back = partial(_is_another, stack, name, before)
        until(f"{name} is back", back)

    def ready() -> bool:
        try:
            return bool(stack.ask("/readyz")["status"] == "ok")
        except OSError:
            return False

    until("all is ready again", ready)
    finish(stack)
    stack.stop()

    printed = stack.output()
    for name in names:
        assert f"{name} ended (killed by SIGKILL); starting again in 0.5 s" in printed


def _is_another(stack: Up, name: str, before: int) -> bool:
    return bool(stack.facts["children"].get(name, before) != before)


def test_a_killed_stack_leaves_nothing_and_the_next_one_goes_on(up: Start) -> None:
    slow = {"PENSTOCK_MODEL__FAKE_TOKENS_PER_SECOND": "20"}
    first = up(environment=slow)
    pids = tree(first.facts["pid"])
    job = first.post_job(200, max_tokens=20)
    until("some are done", lambda: first.ask(f"/batch-result/{job}")["progress"]["completed"])

    first.process.kill()
    first.process.wait(timeout=10)

    until("nothing is left", lambda: not any(is_alive(pid) for pid in pids), 30)
    second = up()
    answer = second.finish_job(job, 100)
    assert answer["status"] == "completed"
    assert len([text for text in answer["responses"] if text is not None]) == 200


def test_a_stop_while_it_starts_leaves_nothing_behind(up: Start) -> None:
    stack = up()
    until("a child runs", (stack.data / "pids.json").exists, 90)
    pids = tree(stack.process.pid)

    status = stack.stop(signal.SIGTERM)

    assert status == 0
    assert [pid for pid in pids if is_alive(pid)] == []


def test_stores_of_the_users_own_take_the_place_of_the_embedded_ones(
    up: Start, database_url: str, redis_url: str
) -> None:
    stores = {"PENSTOCK_DATABASE__URL": database_url, "PENSTOCK_BROKER__URL": redis_url}
    stack = up(environment=stores)
    finish(stack)
    assert set(stack.facts["children"]) == {"api", "dispatcher", "worker", "flower"}


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may become another user")
def test_an_ordinary_user_may_run_it(up: Start, data_dir: Path) -> None:
    user = pwd.getpwnam("nobody").pw_uid
    python, paths = _interpreter_for(user)
    os.chown(data_dir.parent, user, -1)

    stack = up(python=python, user=user, environment={"PYTHONPATH": paths, "HOME": "/nonexistent"})
    finish(stack)
    owners = {psutil.Process(pid).uids().real for pid in tree(stack.facts["pid"])}
    modes = {stat.S_IMODE(path.stat().st_mode) & 0o077 for path in data_dir.iterdir()}

    assert stack.stop() == 0
    assert owners == {user}
    assert modes == {0}
    assert stat.S_IMODE(data_dir.stat().st_mode) == 0o700


def _interpreter_for(user: int) -> tuple[str, str]:
    """A Python of our version that this user may run, and the paths to our packages."""
    given = [path for path in (os.environ.get("PYTHONPATH"),) if path]
    paths = os.pathsep.join((str(ROOT), sysconfig.get_path("purelib"), *given))
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    for python in (sys.executable, shutil.which(f"python{version}", path="/usr/bin")):
        probe = [python, "-P", "-c", "import psycopg2, pydantic, redis"]
        if python and _runs(probe, user, {"PYTHONPATH": paths}):
            return python, paths
    pytest.skip("no Python here that an ordinary user may run")


def _runs(command: list[str | None], user: int, environment: dict[str, str]) -> bool:
    try:
        done = subprocess.run(
            [part for part in command if part],
            user=user,
            group=user,
            extra_groups=[],
            env=environment,
            check=False,
            capture_output=True,
            timeout=60,
        )
    except PermissionError:
        return False
    return done.returncode == 0


def test_a_port_taken_by_a_stranger_stops_it_before_anything_starts(
    up: Start, data_dir: Path
) -> None:
    with socket.socket() as stranger:
        stranger.bind(("127.0.0.1", 0))
        stranger.listen()
        port = stranger.getsockname()[1]

        stack = up("--flower-port", str(port))

        assert stack.process.wait(timeout=30) == 1
    assert "choose another with --flower-port" in stack.output()
    assert not (data_dir / "postgres").exists()
