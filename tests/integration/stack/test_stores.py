"""The embedded PostgreSQL and Redis: what was written outlives a kill."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psycopg2
import pytest
import redis as client

from penstock.errors import StackError
from penstock.stack.child import Child
from penstock.stack.directory import DataDir
from penstock.stack.postgres import EmbeddedPostgres
from penstock.stack.redis import EmbeddedRedis
from penstock.stack.supervisor import Supervisor
from tests.integration.stack.conftest import is_alive, until

pytestmark = pytest.mark.slow


@dataclass
class Stores:
    directory: DataDir
    postgres: EmbeddedPostgres
    redis: EmbeddedRedis
    supervisor: Supervisor

    def query(self, statement: str) -> list[tuple[object, ...]]:
        connection = psycopg2.connect(self.postgres.url)
        try:
            with connection, connection.cursor() as cursor:
                cursor.execute(statement)
                return cursor.fetchall() if cursor.description else []
        finally:
            connection.close()

    def cache(self) -> client.Redis:
        return client.Redis(unix_socket_path=str(self.directory.sockets / "redis.sock"))


@contextmanager
def stores(path: Path) -> Iterator[Stores]:
    directory = DataDir(path)
    postgres = EmbeddedPostgres(directory, lambda line: None)
    postgres.initialize()
    redis = EmbeddedRedis(directory)
    supervisor = Supervisor(
        [postgres.spec(), redis.spec()],
        stop_order=["redis", "postgres"],
        logs=directory.logs,
        pids=directory.root / "pids.json",
        say=lambda line: None,
    )
    try:
        supervisor.start()
        yield Stores(directory, postgres, redis, supervisor)
    finally:
        supervisor.stop()
        directory.release()


def test_what_was_written_is_there_after_a_stop(data_dir: Path) -> None:
    with stores(data_dir) as first:
        first.query("CREATE TABLE t AS SELECT 42 AS answer")
        with first.cache() as cache:
            cache.set("key", "value")
    with stores(data_dir) as second, second.cache() as cache:
        assert second.query("SELECT answer FROM t") == [(42,)]
        assert cache.get("key") == b"value"
    assert "database system was not properly shut down" not in _log(data_dir, "postgres")


def test_what_was_committed_is_there_after_kill_9(data_dir: Path) -> None:
    with stores(data_dir) as first:
        first.query("CREATE TABLE t AS SELECT 42 AS answer")
        with first.cache() as cache:
            cache.set("key", "value")
        pids = first.supervisor.pids()
        for pid in pids.values():
            os.kill(pid, signal.SIGKILL)
        until("both are gone", lambda: not any(is_alive(pid) for pid in pids.values()))
    with stores(data_dir) as second, second.cache() as cache:
        assert second.query("SELECT answer FROM t") == [(42,)]
        assert cache.get("key") == b"value"


def test_neither_listens_on_the_network_and_redis_keeps_its_promises(data_dir: Path) -> None:
    with stores(data_dir) as running, running.cache() as cache:
        assert running.query("SHOW listen_addresses") == [("",)]
        assert running.query("SHOW fsync") == [("on",)]
        settings = {
            name: cache.config_get(name)[name]
            for name in ("port", "appendonly", "appendfsync", "maxmemory-policy")
        }
    assert settings == {
        "port": "0",
        "appendonly": "yes",
        "appendfsync": "everysec",
        "maxmemory-policy": "noeviction",
    }


def test_a_lock_whose_process_id_belongs_to_another_now_is_no_obstacle(data_dir: Path) -> None:
    with stores(data_dir):
        pass
    stale = data_dir / "postgres" / "postmaster.pid"
    stale.write_text(f"{os.getpid()}\n{data_dir / 'postgres'}\n1\n5432\n\n\n\n\n")

    with stores(data_dir) as again:
        assert again.query("SELECT 1") == [(1,)]


def test_a_set_up_that_was_cut_off_is_done_anew(data_dir: Path) -> None:
    half = data_dir / "postgres.new"
    half.mkdir(parents=True)
    (half / "PG_VERSION").write_text("18\n")

    with stores(data_dir) as running:
        assert running.query("SELECT 1") == [(1,)]
    assert not half.exists()


def test_files_of_another_version_are_a_sentence(data_dir: Path) -> None:
    cluster = data_dir / "postgres"
    cluster.mkdir(parents=True)
    (cluster / "PG_VERSION").write_text("13\n")

    with pytest.raises(StackError, match="was made by PostgreSQL 13"), stores(data_dir):
        pass


def test_a_long_path_is_no_obstacle(data_dir: Path) -> None:
    with stores(data_dir / ("long" * 30)) as running:
        assert running.query("SELECT 1") == [(1,)]
        short = running.directory.sockets
        assert not short.is_relative_to(data_dir)
    assert not short.exists()


def test_a_server_that_is_killed_comes_back_while_clients_hold_its_backends(
    data_dir: Path,
) -> None:
    with stores(data_dir) as running:
        held = psycopg2.connect(running.postgres.url)
        with held.cursor() as cursor:
            cursor.execute("SELECT 1")
        pid = running.supervisor.pids()["postgres"]
        os.kill(pid, signal.SIGKILL)
        until("it is gone", lambda: "postgres" not in running.supervisor.pids())

        child = Child(running.postgres.spec(), running.directory.logs)

        def back() -> bool:
            if child.pid is None:
                child.spawn()
            return child.spec.ready()

        until("it is back", back)
        assert running.query("SELECT 1") == [(1,)]
        child.ask_to_stop(hurry=lambda: False)
        held.close()


def _log(data: Path, name: str) -> str:
    return (data / "logs" / f"{name}.log").read_text()
