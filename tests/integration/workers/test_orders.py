"""A worker that is told to serve another model comes back with it, and jobs of both are done."""

from __future__ import annotations

import pytest

from penstock.settings import ModelSettings, Settings, WorkerSettings
from storage import fleet, orders, overview
from storage.database import Database
from storage.records import WorkerRecord
from tests.support.talk import said, say
from tests.support.waiting import until
from tests.support.workers import Jobs, Processes
from workers import ordered
from workers.ordered import EXIT_FOR_ORDER, MAX_TRIES

SLOT = "test-0"
MODELS = {"PENSTOCK_MODEL__SERVED_NAME": "first", "PENSTOCK_MODEL__CHOICES": "second=fake"}


def _worker(database: Database) -> WorkerRecord | None:
    with database.begin() as conn:
        return next(iter(fleet.workers(conn, max_age=5)), None)


def _serves(database: Database, model: str) -> bool:
    found = _worker(database)
    return found is not None and found.model == model


def _order(database: Database, model: str) -> None:
    with database.begin() as conn:
        orders.place(conn, SLOT, model)


def _wanted(database: Database) -> tuple[str | None, str | None]:
    with database.begin() as conn:
        return orders.wanted(conn, SLOT), orders.last_error(conn, SLOT)


def test_jobs_of_two_models_wait_and_each_is_done_when_its_model_is_loaded(
    jobs: Jobs, processes: Processes, database: Database
) -> None:
    slow = {"PENSTOCK_MODEL__FAKE_TOKENS_PER_SECOND": "20", "PENSTOCK_MODEL__MAX_ROWS": "32"}
    settings = {**MODELS, **slow}
    first, second = jobs.post(600, model="first"), jobs.post(100, model="second")
    worker = processes.start("worker", **settings)
    until("the first job runs", lambda: jobs.done(first) > 0)
    _order(database, "second")

    assert worker.wait(timeout=30) == EXIT_FOR_ORDER
    assert not jobs.finished(first)
    settings.pop("PENSTOCK_MODEL__FAKE_TOKENS_PER_SECOND")
    worker = processes.start("worker", **settings)
    until("the second job ends", lambda: jobs.finished(second))
    found = _worker(database)
    assert found is not None and found.model == "second"
    assert found.info["choices"] == ["first", "second"]
    _order(database, "first")

    assert worker.wait(timeout=30) == EXIT_FOR_ORDER
    processes.start("worker", **settings)
    until("the first job ends", lambda: jobs.finished(first))
    for batch, prompts in ((first, 600), (second, 100)):
        assert jobs.get(batch).completed == prompts
        with database.begin() as conn:
            assert overview.repeats(conn, batch) == 0


@pytest.mark.parametrize("wanted", ["missing", "unloadable"])
def test_an_order_that_cannot_be_carried_out_is_given_up_with_its_reason(
    wanted: str, database: Database
) -> None:
    choices = ["unloadable=/nowhere/to/be/found"]
    settings = Settings(
        model=ModelSettings(name="fake", served_name="first", choices=choices),
        worker=WorkerSettings(slot=SLOT),
    )
    with database.begin() as conn:
        fleet.register(conn, SLOT, "earlier boot", "first", {})
    _order(database, wanted)

    with pytest.raises(SystemExit) as ended:
        ordered.load(settings, database)

    assert ended.value.code == EXIT_FOR_ORDER
    kept, error = _wanted(database)
    assert kept is None and error
    assert ordered.load(settings, database)[1].info.name == "fake"


def test_a_model_that_kills_its_processes_is_given_up_after_a_few(
    processes: Processes, database: Database
) -> None:
    with database.begin() as conn:
        fleet.register(conn, SLOT, "earlier boot", "first", {})
    _order(database, "second")
    with database.begin() as conn:
        for number in range(1, MAX_TRIES + 1):  # each of them died before it said `loaded`
            attempt = orders.attempt(conn, SLOT)
            assert attempt is not None and attempt.number == number

    assert processes.start("worker", **MODELS).wait(timeout=60) == EXIT_FOR_ORDER
    assert _wanted(database)[0] is None


def test_a_worker_that_is_killed_comes_back_with_the_ordered_model(
    processes: Processes, database: Database
) -> None:
    with database.begin() as conn:
        fleet.register(conn, SLOT, "earlier boot", "first", {})
    _order(database, "second")
    worker = processes.start("worker", **MODELS)
    until("it serves it", lambda: _serves(database, "second"))
    boot = _worker(database)
    worker.kill()

    processes.start("worker", **MODELS)

    def next_life() -> bool:
        found = _worker(database)
        return found is not None and boot is not None and found.boot_id != boot.boot_id

    until("it is back", next_life)
    assert _serves(database, "second")
    with database.begin() as conn:
        attempt = orders.attempt(conn, SLOT)
    assert attempt is not None and attempt.number == 1


def test_a_worker_that_is_killed_between_two_turns_answers_both_in_order(
    processes: Processes, database: Database
) -> None:
    slow = {"PENSTOCK_MODEL__FAKE_TOKENS_PER_SECOND": "2"}
    say(database, "talk", "one two three four five six", model="fake")
    say(database, "talk", "then what", model="fake")
    worker = processes.start("worker", **slow)
    until("the first turn runs", lambda: _running(database) == 1)
    worker.kill()
    worker.wait(timeout=10)

    processes.start("worker")
    until("both are answered", lambda: len(said(database, "talk")) == 4)

    assert [content for role, content in said(database, "talk") if role == "assistant"] == [
        "echo: one two three four five six",
        "echo: then what",
    ]
    with database.begin() as conn:
        tokens = conn.exec_driver_sql(
            "SELECT r.prompt_tokens FROM results r JOIN messages m USING (batch_id)"
            " ORDER BY m.created_at"
        ).scalars()
        first, second = tokens
    assert second > first + len("then what")  # the first turn was read before the second


def _running(database: Database) -> int:
    with database.begin() as conn:
        query = "SELECT count(*) FROM requests WHERE state = 'running'"
        return int(conn.exec_driver_sql(query).scalar_one())
