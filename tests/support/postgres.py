"""A real PostgreSQL for the tests, from the wheel: one server, one migrated template, and a clone
of it for whoever asks."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from itertools import count
from pathlib import Path
from urllib.parse import quote

import psutil
import psycopg2

from penstock.stack.child import Child
from penstock.stack.directory import DataDir
from penstock.stack.postgres import EmbeddedPostgres
from storage import migrate
from tests.support.waiting import until

_TEMPLATE = "penstock_template"
#: Off: what is slow, and what would count rows at a moment of its own.
_OFF = ("fsync", "synchronous_commit", "full_page_writes", "autovacuum")


class PostgresServer:
    """A running server. Its socket is in a folder with a short path."""

    def __init__(self, socket_dir: Path, child: Child) -> None:
        self._socket_dir = socket_dir
        self._child = child
        self._numbers = count(1)
        self._has_template = False

    def url(self, database: str) -> str:
        return f"postgresql://postgres@/{database}?host={quote(str(self._socket_dir), safe='/')}"

    def run(self, statement: str) -> None:
        """One statement outside of a transaction, as CREATE DATABASE wants it."""
        with closing(psycopg2.connect(self.url("postgres"))) as connection:
            connection.autocommit = True
            with connection.cursor() as cursor:
                cursor.execute(statement)

    @contextmanager
    def stopped(self) -> Iterator[None]:
        """It is not there meanwhile. From the main thread."""
        self._child.ask_to_stop(hurry=lambda: False)
        try:
            yield
        finally:
            start(self._child)

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """It and all its backends stand still meanwhile, with their sockets open."""
        server = psutil.Process(self._child.pid)
        processes = [server, *server.children()]
        for process in processes:
            process.suspend()
        try:
            yield
        finally:
            for process in processes:
                process.resume()

    @contextmanager
    def empty_database(self, template: str = "template1") -> Iterator[str]:
        """The URL of a new database, dropped at the end whoever is still connected."""
        name = f"test_{next(self._numbers)}"
        self.run(f"CREATE DATABASE {name} TEMPLATE {template}")
        try:
            yield self.url(name)
        finally:
            self.run(f"DROP DATABASE {name} WITH (FORCE)")

    @contextmanager
    def migrated_database(self) -> Iterator[str]:
        """The URL of a new database with all migrations, cloned from a template."""
        if not self._has_template:
            self.run(f"CREATE DATABASE {_TEMPLATE}")
            migrate.upgrade(self.url(_TEMPLATE))
            self._has_template = True
        with self.empty_database(_TEMPLATE) as url:
            yield url


def start(child: Child) -> None:
    child.spawn()
    until("PostgreSQL is ready", child.spec.ready, timeout=child.spec.start_limit)


@contextmanager
def postgres() -> Iterator[PostgresServer]:
    """Start a server as `penstock up` does; stop it and remove its data at the end."""
    home = Path(tempfile.mkdtemp(prefix="pk-pg-"))
    directory = DataDir(home)
    try:
        embedded = EmbeddedPostgres(directory, lambda line: None)
        embedded.initialize()
        child = Child(embedded.spec(), directory.logs)
        try:
            start(child)
            started = PostgresServer(directory.sockets / "pg", child)
            for setting in _OFF:
                started.run(f"ALTER SYSTEM SET {setting} = off")
            started.run("SELECT pg_reload_conf()")
            yield started
        finally:
            child.ask_to_stop(hurry=lambda: False)
    finally:
        directory.release()
        shutil.rmtree(home, ignore_errors=True)
