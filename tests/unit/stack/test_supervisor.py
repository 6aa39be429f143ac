"""The supervisor on small real processes: order, restarts, limits, and nothing left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from penstock.errors import StackError
from penstock.stack.child import ChildSpec
from penstock.stack.supervisor import FIRST_DELAY, Stopped, Supervisor
from tests.unit.stack.conftest import Make, is_alive, until

SLEEPY = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(60)"


class Stack:
    """A supervisor with its lines kept."""

    def __init__(self, specs: list[ChildSpec], root: Path, stop_order: list[str] | None = None):
        self.lines: list[str] = []
        self.pids_file = root / "pids.json"
        self.supervisor = Supervisor(
            specs,
            stop_order=stop_order or [spec.name for spec in reversed(specs)],
            logs=root / "logs",
            pids=self.pids_file,
            say=self.lines.append,
        )


@contextmanager
def acting(action: Callable[[], object]) -> Iterator[None]:
    """Run an action beside the block, which holds the main thread."""
    errors: list[BaseException] = []

    def run() -> None:
        try:
            action()
        except BaseException as error:
            errors.append(error)
        finally:
            os.kill(os.getpid(), signal.SIGTERM)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        thread.join(30)
    assert not errors, errors


def test_children_start_in_order_and_each_waits_for_the_one_before(
    make_spec: Make, tmp_path: Path, logs: Path
) -> None:
    started = tmp_path / "started"
    note = "import time; open({!r}, 'a').write({!r}); time.sleep({})"
    asked: list[str] = []

    def second_ready() -> bool:
        asked.append(started.read_text() if started.exists() else "")
        return asked[-1] == "ab"

    specs = [
        make_spec("a", note.format(str(started), "a", 60), ready=started.exists),
        make_spec("b", note.format(str(started), "b", 60), ready=second_ready),
        make_spec("c", note.format(str(started), "c", 0), once=True),
    ]
    stack = Stack(specs, tmp_path)

    stack.supervisor.start()
    stack.supervisor.stop()

    assert started.read_text() == "abc"
    assert not any("c" in seen for seen in asked)
    assert stack.lines == ["a ready", "b ready", "c done"]


def test_a_killed_child_is_started_again_and_said_so(
    make_spec: Make, tmp_path: Path, logs: Path
) -> None:
    stack = Stack([make_spec("worker"), make_spec("api")], tmp_path)
    supervisor = stack.supervisor
    seen: dict[str, dict[str, int]] = {}

    def kill_the_worker() -> None:
        seen["before"] = supervisor.pids()
        os.kill(seen["before"]["worker"], signal.SIGKILL)
        until(lambda: supervisor.pids().get("worker") not in (None, seen["before"]["worker"]))
        seen["after"] = supervisor.pids()

    with supervisor.signals():
        supervisor.start()
        with acting(kill_the_worker):
            supervisor.watch()
        supervisor.stop()

    assert seen["after"]["api"] == seen["before"]["api"]
    expected = f"worker ended (killed by SIGKILL); starting again in {FIRST_DELAY:g} s"
    assert stack.lines[2:] == [expected]


def test_a_child_that_keeps_dying_is_started_less_and_less_often(
    make_spec: Make, tmp_path: Path, logs: Path
) -> None:
    fragile = make_spec("fragile", "raise SystemExit(3)")
    stack = Stack([make_spec("steady"), fragile], tmp_path)
    died = "fragile ended (exit status 3); starting again in {} s"
    expected = [died.format(delay) for delay in ("0.5", "1", "2")]

    with stack.supervisor.signals():
        stack.supervisor.start()
        with acting(lambda: until(lambda: len(stack.lines) >= 5)):
            stack.supervisor.watch()
        stack.supervisor.stop()

    assert stack.lines[2:5] == expected


def test_the_pause_before_a_restart_has_its_limit(
    make_spec: Make, tmp_path: Path, logs: Path
) -> None:
    fragile = replace(make_spec("fragile", "raise SystemExit(3)"), longest_pause=0.5)
    stack = Stack([make_spec("steady"), fragile], tmp_path)

    with stack.supervisor.signals():
        stack.supervisor.start()
        with acting(lambda: until(lambda: len(stack.lines) >= 5)):
            stack.supervisor.watch()
        stack.supervisor.stop()

    assert stack.lines[2:5] == ["fragile ended (exit status 3); starting again in 0.5 s"] * 3


def test_children_stop_in_the_given_order(make_spec: Make, tmp_path: Path, logs: Path) -> None:
    stopped = tmp_path / "stopped"
    code = (
        "import signal, sys, time\n"
        "def stop(*_):\n    open({0!r}, 'a').write({1!r}); sys.exit()\n"
        "signal.signal(signal.SIGTERM, stop)\n"
        "open({2!r}, 'w').close()\n"
        "time.sleep(60)"
    )
    specs = []
    for name in "abc":
        up = tmp_path / f"{name}.up"
        specs.append(make_spec(name, code.format(str(stopped), name, str(up)), ready=up.exists))
    stack = Stack(specs, tmp_path, stop_order=["b", "c", "a"])

    stack.supervisor.start()
    pids = stack.supervisor.pids()
    stack.supervisor.stop()

    assert stopped.read_text() == "bca"
    assert not [pid for pid in pids.values() if is_alive(pid)]
    assert not stack.pids_file.exists()


def test_a_child_deaf_to_its_signal_is_killed_after_its_limit(
    make_spec: Make, tmp_path: Path, logs: Path
) -> None:
    stack = Stack([make_spec("deaf", SLEEPY, stop=((signal.SIGTERM, 0.3),))], tmp_path)

    stack.supervisor.start()
    pid = stack.supervisor.pids()["deaf"]
    stack.supervisor.stop()

    assert not is_alive(pid)


def test_a_second_signal_stops_without_patience(
    make_spec: Make, tmp_path: Path, logs: Path
) -> None:
    stack = Stack([make_spec("deaf", SLEEPY, stop=((signal.SIGTERM, 60),))], tmp_path)

    with stack.supervisor.signals():
        stack.supervisor.start()
        os.kill(os.getpid(), signal.SIGINT)
        stack.supervisor.watch()
        os.kill(os.getpid(), signal.SIGINT)
        stack.supervisor.stop()

    assert stack.supervisor.pids() == {}


def test_a_child_that_dies_while_it_starts_is_reported_with_its_last_words(
    make_spec: Make, tmp_path: Path, logs: Path
) -> None:
    code = "import sys; print('the disk is odd', file=sys.stderr); sys.exit(4)"
    stack = Stack([make_spec("worker", code, ready=lambda: False)], tmp_path)

    with pytest.raises(StackError, match=r"worker ended while it started \(exit status 4\)") as e:
        stack.supervisor.start()
    stack.supervisor.stop()

    assert "the disk is odd" in e.value.message
    assert str(logs / "worker.log") in e.value.message


def test_a_child_that_is_never_ready_is_given_up_after_its_limit(
    make_spec: Make, tmp_path: Path, logs: Path
) -> None:
    stack = Stack([make_spec("slow", ready=lambda: False, start_limit=0.3)], tmp_path)

    with pytest.raises(StackError, match="slow was not ready within 0 seconds"):
        stack.supervisor.start()
    stack.supervisor.stop()

    assert stack.supervisor.pids() == {}


def test_a_store_that_dies_while_it_starts_is_tried_again(
    make_spec: Make, tmp_path: Path, logs: Path
) -> None:
    mark = tmp_path / "second-time"
    code = (
        f"import pathlib, sys, time\nmark = pathlib.Path({str(mark)!r})\n"
        "if not mark.exists():\n    mark.touch(); sys.exit(1)\n"
        "mark.write_text('up'); time.sleep(60)"
    )
    ready = lambda: mark.exists() and mark.read_text() == "up"  # noqa: E731
    stack = Stack([make_spec("store", code, ready=ready, retry_start=True)], tmp_path)

    stack.supervisor.start()
    stack.supervisor.stop()

    assert stack.lines == ["store ready"]


def test_a_stop_during_the_start_ends_the_start(
    make_spec: Make, tmp_path: Path, logs: Path
) -> None:
    stack = Stack([make_spec("slow", ready=lambda: False)], tmp_path)

    with stack.supervisor.signals():
        os.kill(os.getpid(), signal.SIGTERM)
        with pytest.raises(Stopped):
            stack.supervisor.start()
        stack.supervisor.stop()

    assert stack.supervisor.pids() == {}


SUPERVISE = """
import sys
from pathlib import Path
from penstock.stack.child import ChildSpec
from penstock.stack.supervisor import Supervisor

root = Path(sys.argv[1])
nap = (sys.executable, "-S", "-c", "import time; time.sleep(60)")
specs = [ChildSpec("a", nap), ChildSpec("b", nap)]
logs = root / "logs"
s = Supervisor(specs, stop_order=["b", "a"], logs=logs, pids=root / "pids.json", say=print)
s.start()
print(*s.pids().values(), flush=True)
s.watch()
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel ends orphans on Linux only")
def test_nothing_is_left_when_the_supervisor_itself_is_killed(tmp_path: Path, logs: Path) -> None:
    command = [sys.executable, "-c", SUPERVISE, str(tmp_path)]
    checkout = str(Path(__file__).parents[3])
    environment = os.environ | {"PYTHONPATH": checkout}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, env=environment
    ) as supervisor:
        assert supervisor.stdout is not None
        lines = [supervisor.stdout.readline() for _ in range(3)]
        pids = [int(pid) for pid in lines[2].split()]
        assert all(psutil.pid_exists(pid) for pid in pids)

        supervisor.kill()

    until(lambda: not any(is_alive(pid) for pid in pids))


def test_children_of_a_killed_supervisor_end_before_new_ones_start(
    make_spec: Make, tmp_path: Path, logs: Path
) -> None:
    first = Stack([make_spec("store")], tmp_path)
    first.supervisor.start()
    old = first.supervisor.pids()["store"]
    second = Stack([make_spec("store")], tmp_path)

    second.supervisor.start()

    assert not is_alive(old)
    assert first.supervisor.pids() == {}
    second.supervisor.stop()

    assert second.lines[0] == "store of an earlier run was still ending; waited for it"


def test_a_log_past_its_limit_moves_aside_and_goes_on(
    make_spec: Make, tmp_path: Path, logs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("penstock.stack.child.LOG_LIMIT_BYTES", 1000)
    (logs / "noisy.log").write_text("x" * 2000)
    stack = Stack([make_spec("noisy", "print('new', flush=True)", once=True)], tmp_path)

    stack.supervisor.start()
    stack.supervisor.stop()

    assert (logs / "noisy.log").read_text() == "new\n"
    assert (logs / "noisy.log.1").stat().st_size == 2000
    assert (logs / "noisy.log.1").stat().st_mode & 0o077 == 0
