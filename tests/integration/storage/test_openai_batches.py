"""Batches of files in the database: who reads one, what is left of one that was not read to the
end, and what their own files are worth."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import pytest
from sqlalchemy import event, text

from penstock.errors import Conflict, LimitReached, NotFound
from penstock.ids import new_id
from storage import files, intake, leases, lifecycle, openai_batches, output, retention
from storage.database import Database
from storage.files import FileLimits, NewFile
from storage.openai_batches import NewOpenaiBatch, OpenaiBatch
from storage.records import NewPrompt
from storage.states import BatchStatus
from tests.support import jobs

CHAT = "/v1/chat/completions"
ROOM = FileLimits()


def new_file(owner: str = jobs.OWNER, size: int = 9) -> NewFile:
    return NewFile(new_id("file"), owner, "batch", "in.jsonl", size, "hash", lifetime=3_600)


def accept(database: Database, **changes: object) -> OpenaiBatch:
    """A batch whose file waits to be read."""
    with database.begin() as conn:
        file = files.add(conn, new_file(), ROOM)
        asked = NewOpenaiBatch(
            endpoint=CHAT,
            completion_window="24h",
            quarantine=False,
            output_lifetime=3_600,
            input_file_id=file.id,
            output_file_id=new_id("file"),
            error_file_id=new_id("file"),
        )
        job = openai_batches.create(conn, jobs.new_batch(**changes), asked)
        found = openai_batches.get(conn, jobs.OWNER, job.id)
    assert found is not None
    return found


def lines(*params: dict[str, object]) -> Iterator[NewPrompt]:
    for number, one in enumerate(params):
        yield NewPrompt((("user", f"prompt {number}"),), params=one, custom_id=f"row-{number}")


def read(database: Database, *params: dict[str, object]) -> OpenaiBatch:
    """The oldest batch that waits, read with these lines."""
    with database.begin() as conn:
        batch = openai_batches.next_unread(conn)
        assert batch is not None
        intake.fill(conn, batch.job, lines(*params))
        openai_batches.accept(conn, batch.job.id)
        found = openai_batches.get(conn, jobs.OWNER, batch.job.id)
    assert found is not None
    return found


def test_a_file_is_read_by_one_process_and_by_the_next_when_that_dies(database: Database) -> None:
    first, second = accept(database), accept(database)

    with database.begin() as conn, database.begin() as other, database.begin() as third:
        one, two = openai_batches.next_unread(conn), openai_batches.next_unread(other)
        assert one is not None and two is not None
        assert [one.job.id, two.job.id] == [first.job.id, second.job.id]
        assert openai_batches.next_unread(third) is None
        intake.fill(conn, one.job, lines({}))
        conn.rollback()  # as a dying process leaves it

    with database.begin() as conn:
        again = openai_batches.next_unread(conn)
        assert again is not None and again.job.id == first.job.id
        assert conn.execute(text("SELECT count(*) FROM requests")).scalar_one() == 0


def test_each_line_is_claimed_with_what_it_asks_and_equal_ones_are_one_object(
    database: Database,
) -> None:
    accept(database)
    read(database, {"max_tokens": 1, "seed": 2}, {"max_tokens": 3}, {"seed": 2, "max_tokens": 1})

    (shard,) = jobs.claim(database)

    one, two, three = shard.requests
    assert (one.params, two.params) == ({"max_tokens": 1, "seed": 2}, {"max_tokens": 3})
    assert one.params is three.params
    jobs.store(database)
    (ordinary,) = jobs.claim(database)
    assert [request.params for request in ordinary.requests] == [None]


def test_a_batch_can_be_cancelled_while_its_file_is_being_read(database: Database) -> None:
    batch = accept(database)

    with pytest.raises(Conflict), database.begin() as conn:
        unread = openai_batches.next_unread(conn)
        assert unread is not None
        with database.begin() as other:
            cancelled = lifecycle.request_cancel(other, jobs.OWNER, batch.job.id)
            assert cancelled is not None and cancelled.status is BatchStatus.CANCELLING
            assert lifecycle.finalize(other) == [batch.job.id]
        intake.fill(conn, unread.job, lines({}))

    with database.begin() as conn:
        assert openai_batches.reject(conn, batch.job.id, None) == []
        assert openai_batches.next_unread(conn) is None
        found = openai_batches.get(conn, jobs.OWNER, batch.job.id)
    assert found is not None and found.job.status is BatchStatus.CANCELLED


def test_a_rejected_batch_fails_once_with_its_errors(database: Database) -> None:
    batch = accept(database)
    errors = [{"code": "empty_file", "message": "The file has no lines."}]

    with database.begin() as conn:
        assert openai_batches.reject(conn, batch.job.id, errors) == [batch.job.id]
        assert openai_batches.reject(conn, batch.job.id, []) == []
        found = openai_batches.get(conn, jobs.OWNER, batch.job.id)

    assert found is not None
    assert (found.job.status, found.errors) == (BatchStatus.FAILED, errors)


def test_who_reads_a_batch_while_it_is_rejected_sees_all_of_it_or_nothing(
    database: Database,
) -> None:
    batch = accept(database)
    errors = [{"code": "empty_file", "message": "The file has no lines."}]

    def reject(*_: object) -> None:
        with database.begin() as other:
            openai_batches.reject(other, batch.job.id, errors)

    with database.begin() as conn:
        event.listen(conn, "after_cursor_execute", reject, once=True)
        during = openai_batches.get(conn, jobs.OWNER, batch.job.id)
        after = openai_batches.get(conn, jobs.OWNER, batch.job.id)

    assert during is not None and after is not None
    assert (during.job.status, during.errors) == (BatchStatus.VALIDATING, None)
    assert (after.job.status, after.errors) == (BatchStatus.FAILED, errors)


def test_output_has_what_each_line_asked_and_errors_are_apart(database: Database) -> None:
    accept(database)
    batch = read(database, {"max_tokens": 1}, {"max_tokens": 2}, {"max_tokens": 3})
    (shard,) = jobs.claim(database)
    jobs.admit(database, shard)
    with database.begin() as conn:
        outcomes = [jobs.answer(0), jobs.failure(1), jobs.answer(2)]
        leases.commit(conn, shard.id, shard.epoch, outcomes, jobs.LEASE)

        good = output.lines(conn, batch.job.id, 0, 9, good=True)
        bad = output.lines(conn, batch.job.id, 0, 9, good=False)
        second = output.lines(conn, batch.job.id, 1, 3, good=True)

    assert [(one.custom_id, one.asked["max_tokens"]) for one in good] == [
        ("row-0", 1),
        ("row-2", 3),
    ]
    assert [(one.custom_id, one.refused) for one in bad] == [("row-1", False)]
    assert [one.row.position for one in second] == [2]


def test_a_batchs_files_are_seen_when_there_is_something_in_them_and_grow_old_after_its_end(
    database: Database,
) -> None:
    accept(database)
    batch = read(database, {})

    def visible() -> set[str]:
        with database.begin() as conn:
            listed = {one.id for one in files.page(conn, jobs.OWNER, limit=9)}
            got = (batch.input_file_id, batch.output_file_id, batch.error_file_id)
            assert listed == {one for one in got if files.get(conn, jobs.OWNER, one)}
        return listed

    assert visible() == {batch.input_file_id}
    jobs.run_all(database)
    assert visible() == {batch.input_file_id, batch.output_file_id}

    with database.begin() as conn:
        assert openai_batches.next_uncounted(conn) is None
        lifecycle.finalize(conn)
    _count_all(database)
    with database.begin() as conn:
        file = files.get(conn, jobs.OWNER, batch.output_file_id)
        assert file is not None and (file.bytes, file.batch_id) == (7, batch.job.id)
        assert file.expires_at is not None
        conn.execute(text("UPDATE files SET expires_at = now() - interval '1s'"))
    assert visible() == set()
    with database.begin() as conn:
        assert files.delete_expired(conn) == [batch.input_file_id]
        assert conn.execute(text("SELECT count(*) FROM files")).scalar_one() == 0


def test_a_file_waits_until_it_is_read_and_its_output_until_it_is_counted(
    database: Database,
) -> None:
    def waiting() -> bool:
        with database.begin() as conn:
            return openai_batches.any_waiting(conn)

    assert not waiting()
    accept(database)
    assert waiting()
    read(database, {})
    assert not waiting()
    jobs.run_all(database)
    assert not waiting()  # it may yet grow
    with database.begin() as conn:
        lifecycle.finalize(conn)
    assert waiting()
    _count_all(database)
    assert not waiting()


def _count_all(database: Database) -> None:
    counted = True
    while counted:
        with database.begin() as conn:
            found = openai_batches.next_uncounted(conn)
            counted = found is not None
            if found is not None:
                openai_batches.counted(conn, found[0], 7)


def test_a_batch_that_runs_again_is_counted_again(database: Database) -> None:
    accept(database)
    batch = read(database, {}, {})
    (shard,) = jobs.claim(database)
    jobs.admit(database, shard)
    with database.begin() as conn:
        leases.commit(conn, shard.id, shard.epoch, [jobs.answer(0), jobs.failure(1)], jobs.LEASE)
        lifecycle.finalize(conn)
    _count_all(database)

    with database.begin() as conn:
        lifecycle.retry_failed(conn, jobs.OWNER, batch.job.id)
        file = files.get(conn, jobs.OWNER, batch.output_file_id)
        found = openai_batches.get(conn, jobs.OWNER, batch.job.id)

    assert file is not None and (file.bytes, file.expires_at) == (None, None)
    assert found is not None and found.ending_at is None


def test_retention_takes_a_batch_with_its_files_and_leaves_the_input(database: Database) -> None:
    accept(database)
    batch = read(database, {})
    jobs.run_all(database)
    with database.begin() as conn:
        lifecycle.finalize(conn)
        conn.execute(text("UPDATE batches SET finished_at = now() - interval '2h'"))

    for _ in range(3):
        with database.begin() as conn:
            retention.delete_old(conn, 3_600)

    with database.begin() as conn:
        assert openai_batches.get(conn, jobs.OWNER, batch.job.id) is None
        assert [one.id for one in files.page(conn, jobs.OWNER, limit=9)] == [batch.input_file_id]


def test_nobody_has_more_files_waiting_than_the_bound(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(openai_batches, "MAX_UNREAD_OF_OWNER", 1)
    accept(database)

    with pytest.raises(LimitReached):
        accept(database)


def test_a_batch_needs_a_file_of_its_owner(database: Database) -> None:
    batch = accept(database)
    asked = {name: getattr(batch, name) for name in NewOpenaiBatch.__dataclass_fields__}

    with pytest.raises(NotFound), database.begin() as conn:
        openai_batches.create(conn, jobs.new_batch(owner="ann"), NewOpenaiBatch(**asked))


def test_posts_of_one_key_at_once_make_one_batch(database: Database) -> None:
    made: list[object] = []
    start = threading.Barrier(8)

    def post() -> None:
        start.wait()
        try:
            made.append(accept(database, idempotency_key="once").job.id)
        except intake.IdempotentReplay as replay:
            made.append(replay.batch.id)

    threads = [threading.Thread(target=post) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert (len(made), len(set(made))) == (8, 1)
    with database.begin() as conn:
        assert conn.execute(text("SELECT count(*) FROM openai_batches")).scalar_one() == 1


def test_names_that_no_file_has_are_told(database: Database) -> None:
    with database.begin() as conn:
        file = files.add(conn, new_file(), ROOM)
        assert files.unknown(conn, [file.id, "file_x"]) == ["file_x"]
        with pytest.raises(LimitReached):
            files.check_room(conn, jobs.OWNER, FileLimits(files=1), 0)
        with pytest.raises(LimitReached):
            files.check_room(conn, jobs.OWNER, FileLimits(bytes=10), 2)


def test_uploads_at_once_do_not_slip_over_a_bound_together(database_url: str) -> None:
    wide, bound = Database(database_url, pool_size=8), FileLimits(files=10, bytes=30)
    together = threading.Barrier(8)

    def try_to_add(_: int) -> str:
        together.wait()
        try:
            with wide.begin() as conn:
                files.add(conn, new_file(), bound)
        except LimitReached as error:
            return error.code
        return "stored"

    with closing(wide), ThreadPoolExecutor(8) as pool:
        answers = Counter(pool.map(try_to_add, range(16)))

    assert answers == {"stored": 3, "rate_limit_exceeded": 13}
