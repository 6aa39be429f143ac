"""A Penstock stack of the demo's own: `penstock up` as a subprocess, from start to a sure end.

Knows the command line and `stack.json`; nothing of jobs.
"""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from penstock.errors import StackError
from penstock.stack.child import bind_to_parent

CHECKOUT = Path(__file__).parents[2]
START_LIMIT = 180.0  # seconds; the model's libraries may be read from a cold disk
STOP_LIMIT = 60.0  # seconds; `up` itself bounds the end of every child
LOOK_EVERY = 0.1  # seconds
STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@dataclass(frozen=True)
class RunningStack:
    """Where the parts of the stack are. `children` maps a name to a process id."""

    api_url: str
    flower_url: str
    logs: str
    children: dict[str, int]


@contextmanager
def running(data_dir: Path, model: str | None = None) -> Iterator[RunningStack]:
    """Bring a stack up in `data_dir` on free ports, and down again whatever happens.

    Raises StackError with the last lines it wrote when it does not come up.
    """
    data_dir = data_dir.absolute()
    command = [sys.executable, "-m", "penstock", "up", "--port", "0", "--flower-port", "0"]
    command += ["--data-dir", str(data_dir), *(["--model", _named(model)] if model else [])]
    log_file = data_dir / "up.log"
    with log_file.open("wb") as log:
        # Its own session: Ctrl-C in the terminal is for the demo, which then stops the stack.
        process = subprocess.Popen(
            command,
            cwd=data_dir,  # away from a `.env` that is meant for another stack
            env=_environment(),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
            # A killed demo cannot stop it; the kernel then asks it to.
            preexec_fn=bind_to_parent(signal.SIGTERM),  # noqa: PLW1509 (one thread)
        )
    try:
        yield _wait_until_ready(process, data_dir / "stack.json", log_file)
    finally:
        _stop(process)


def _named(model: str) -> str:
    """A path as seen from anywhere; any other name as it is."""
    return str(Path(model).absolute()) if Path(model).exists() else model


def _environment() -> dict[str, str]:
    """This process's, without settings that are meant for another stack."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PENSTOCK_")}
    return kept | {"PYTHONPATH": str(CHECKOUT)}


def _wait_until_ready(
    process: subprocess.Popen[bytes], facts_file: Path, log_file: Path
) -> RunningStack:
    deadline = time.monotonic() + START_LIMIT
    while time.monotonic() < deadline:
        if facts_file.exists():
            facts = json.loads(facts_file.read_text())
            return RunningStack(
                api_url=facts["api_url"],
                flower_url=facts["flower_url"],
                logs=facts["logs"],
                children=facts["children"],
            )
        if process.poll() is not None:
            break
        time.sleep(LOOK_EVERY)
    raise StackError(f"The stack did not come up:\n{_last_lines(log_file)}")


def _stop(process: subprocess.Popen[bytes]) -> None:
    with _undisturbed():
        process.terminate()
        try:
            process.wait(STOP_LIMIT)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)  # the kernel ends its children with it
            process.wait(STOP_LIMIT)


@contextmanager
def _undisturbed() -> Iterator[None]:
    """A second Ctrl-C does not leave the stack half stopped."""
    previous = {number: signal.signal(number, signal.SIG_IGN) for number in STOP_SIGNALS}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def _last_lines(log_file: Path, count: int = 8) -> str:
    lines = log_file.read_text(errors="replace").splitlines()
    return "\n".join(line for line in lines[-count:] if line.strip())
