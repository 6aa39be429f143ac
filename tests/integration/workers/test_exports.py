"""Conversations out of one database, into another, and into files by the clock."""

from __future__ import annotations

import datetime as dt
import io
import json
import os
import stat
import subprocess
import sys
import tracemalloc
from pathlib import Path

import pytest
from sqlalchemy import text
from structlog.testing import capture_logs

from penstock.errors import InvalidRequest
from storage import transcripts
from storage.database import Database
from storage.transcripts import SaidTurn
from tests.support import jobs
from tests.support.postgres import PostgresServer
from tests.support.talk import said, say
from tests.support.workers import ROOT
from workers.exports import ScheduledExports, lines, read_turns, write_file

START = dt.datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=dt.UTC)


def _talk(database: Database) -> None:
    for owner, name in (("ann", "a/b"), ("bob", "talk")):
        for message in ("one\nline", "zwei ü \u2028 \\N"):
            say(database, name, message, owner=owner)
            jobs.run_all(database)
            jobs.end(database)
    say(database, "talk", "nobody answers", owner="bob")


def _penstock(
    url: str, *arguments: str, stdin: bytes = b"", setting: str = "PENSTOCK_DATABASE__URL"
) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [sys.executable, "-m", "penstock", "conversations", *arguments],
        cwd=ROOT,
        env={**os.environ, setting: url},
        input=stdin,
        capture_output=True,
        timeout=60,
        check=False,
    )


def _dump(database: Database, owner: str | None = None) -> bytes:
    return b"".join(lines(transcripts.read_all(database, owner)))


def test_the_database_of_a_running_stack_is_found_by_its_data_directory(
    database: Database, database_url: str, tmp_path: Path
) -> None:
    _talk(database)
    (tmp_path / "stack.json").write_text(json.dumps({"database_url": database_url}))

    out = _penstock(str(tmp_path), "export", "-", setting="PENSTOCK_DATA_DIR")

    assert out.returncode == 0, out.stderr
    assert out.stdout == _dump(database)


def test_what_is_exported_and_imported_is_the_same_twice(
    database: Database, database_url: str, postgres_server: PostgresServer, tmp_path: Path
) -> None:
    _talk(database)
    file = tmp_path / "all.jsonl"

    out = _penstock(database_url, "export", str(file))

    assert out.returncode == 0, out.stderr
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    owners = [json.loads(line)["owner"] for line in file.read_bytes().splitlines()]
    assert owners == ["ann"] * 2 + ["bob"] * 3
    with postgres_server.migrated_database() as url:
        other = Database(url)
        first = _penstock(url, "import", str(file))
        again = _penstock(url, "import", "-", stdin=file.read_bytes())
        assert b"5 turns imported" in first.stdout, first.stderr
        assert b"0 turns imported, 5 were there already" in again.stdout, again.stderr
        assert _dump(other) == file.read_bytes()
        assert said(other, "talk", owner="bob") == said(database, "talk", owner="bob")
        other.close()


def test_one_owners_turns_are_exported_alone(database: Database, database_url: str) -> None:
    _talk(database)

    out = _penstock(database_url, "export", "-", "--owner", "ann")

    assert out.stdout == _dump(database, "ann")
    assert out.stdout.count(b"\n") == 2


def test_a_restore_puts_lost_turns_back_in_their_place_and_the_talk_goes_on(
    database: Database,
) -> None:
    for message in ("one", "two", "three"):
        say(database, "mine", message)
        jobs.run_all(database)
        jobs.end(database)
    exported = _dump(database)
    with database.begin() as conn:
        conn.execute(text("DELETE FROM messages WHERE content IN ('one', 'two')"))

    stored = [transcripts.store(database, part) for part in read_turns(io.BytesIO(exported))]
    _, batch = say(database, "mine", "four")

    assert stored == [2]
    assert _dump(database).startswith(exported)
    (shard,) = jobs.claim(database, lane=batch.lane)
    said_before = [message for role, message in shard.requests[0].history if role == "user"]
    assert said_before == ["one", "two", "three"]


def test_a_turn_given_twice_is_stored_once(database: Database) -> None:
    turn = SaidTurn("ann", "talk", START, START, "hello", None, None)

    assert transcripts.store(database, [turn, turn]) == 1


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"said_at": "yesterday"}, "Line 2, `said_at`"),
        ({"said_at": "2026-01-01T00:00:00"}, "Line 2, `said_at`"),
        ({"conversation_id": ""}, "Line 2, `conversation_id`"),
        ({"message": 5}, "Line 2, `message`"),
        ({"message": "a\0b"}, "Line 2 holds NUL"),
        ({"more": 1}, "Line 2, `more`"),
    ],
)
def test_a_bad_line_is_refused_by_number_and_field(change: dict[str, object], says: str) -> None:
    turn = SaidTurn("ann", "talk", START, START, "hello", "hi", START)
    (good,) = lines([turn])
    bad = json.dumps(json.loads(good) | change).encode()

    with pytest.raises(InvalidRequest, match=says):
        list(read_turns(io.BytesIO(good + bad + b"\n")))


def test_a_line_that_is_no_json_ends_the_import_and_what_was_before_stays(
    database: Database, database_url: str
) -> None:
    turns = [
        SaidTurn("ann", "t", START, START + dt.timedelta(seconds=n), str(n), "a", START)
        for n in range(600)
    ]
    file = b"".join(lines(turns)) + b"{\n"

    ended = _penstock(database_url, "import", "-", stdin=file)

    assert ended.returncode == 1
    assert b"Line 601" in ended.stderr and b"500 turns before it" in ended.stderr
    assert b"Traceback" not in ended.stderr
    assert _dump(database).count(b"\n") == 500


def test_memory_does_not_grow_with_the_number_of_turns(database: Database, tmp_path: Path) -> None:
    """40 MB out and in."""
    big = "x" * 40_000

    def turns(count: int) -> list[SaidTurn]:
        return [
            SaidTurn("ann", "t", START, START + dt.timedelta(seconds=n), big, big, START)
            for n in range(count)
        ]

    for start in range(0, 500, 100):
        transcripts.store(database, turns(start + 100)[start:])
    path = tmp_path / "large.jsonl"
    tracemalloc.start()
    write_file(path, lines(transcripts.read_all(database)))
    with path.open("rb") as source:
        stored = sum(transcripts.store(database, part) for part in read_turns(source))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()

    assert (path.stat().st_size > 40_000_000, stored) == (True, 0)
    assert peak < 30_000_000


def test_exports_are_made_when_they_are_due_and_the_newest_kept(
    database: Database, tmp_path: Path
) -> None:
    _talk(database)
    folder = tmp_path / "exports"
    exports = ScheduledExports(database, folder, interval=3_600, keep=2)
    old = [folder / f"conversations-2020010{day}T000000Z.jsonl" for day in (1, 2, 3)]
    folder.mkdir()
    for path in (*old, folder / "conversations-mine.jsonl", folder / ".conversations-x.1.part"):
        path.write_text("")

    exports.tend()
    exports.join()
    exports.tend()  # nothing is due
    exports.join()

    (new,) = set(folder.glob("conversations-2*")) - set(old)
    assert new.read_bytes() == _dump(database)
    assert stat.S_IMODE(new.stat().st_mode) == 0o600
    kept = {path.name for path in folder.iterdir()}
    assert kept == {new.name, old[-1].name, "conversations-mine.jsonl"}


def test_an_export_that_is_stopped_leaves_no_file(database: Database, tmp_path: Path) -> None:
    _talk(database)
    exports = ScheduledExports(database, tmp_path / "exports", interval=3_600, keep=2)
    exports.stop()

    exports.tend()
    exports.join()

    assert list((tmp_path / "exports").iterdir()) == []


def test_an_export_that_fails_is_tried_again_later_and_says_so(
    database: Database, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    exports = ScheduledExports(database, tmp_path / "file" / "exports", interval=3_600, keep=2)

    with capture_logs() as logs:
        exports.tend()
        exports.join()
        exports.tend()  # not yet again

    assert [line["event"] for line in logs] == ["export.failed"]
