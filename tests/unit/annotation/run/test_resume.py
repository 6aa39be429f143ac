"""Interrupted at any moment, the same command goes on with the same jobs."""

from __future__ import annotations

import stat
from typing import Any

import pytest

from penstock.annotation.run.annotation import Options
from penstock.errors import InvalidRequest, NotFound
from tests.support.service import Service, problem
from tests.unit.annotation.run.conftest import Bench, Heard, ModelService, interrupt, nothing


def leave_unfinished(bench: Bench, options: Options | None = None) -> None:
    """Run until a job is posted, then Ctrl-C."""
    bench.heard.on_progress = interrupt
    with pytest.raises(KeyboardInterrupt):
        bench.run(options)
    bench.heard.on_progress = nothing


@pytest.fixture
def unfinished(bench: Bench, service: ModelService) -> ModelService:
    """The service, with a job that its run has left."""
    service.hold = True
    leave_unfinished(bench)
    return service


def test_the_ledger_is_private_and_there_before_anything_is_posted(
    bench: Bench, service: Service
) -> None:
    bench.heard.on_scanned = interrupt
    with pytest.raises(KeyboardInterrupt):
        bench.run()
    bench.heard.on_scanned = nothing
    service.faults.append(problem(404, "not_found", "Gone."))  # of the first question, the model
    with pytest.raises(NotFound):
        bench.run()
    assert not bench.file.path.exists()
    assert service.jobs == {}

    bench.run()

    assert stat.S_IMODE(bench.file.path.stat().st_mode) == 0o600


def test_after_an_interruption_the_same_job_is_picked_up(
    bench: Bench, unfinished: ModelService
) -> None:
    unfinished.finish()

    summary = bench.run()

    assert summary.jobs == ("batch_1",)
    assert len(unfinished.jobs) == 1
    assert bench.heard.notes == ["Picking up 1 job of an earlier run."]


@pytest.mark.parametrize("lost", ["request id", "ledger"])
def test_what_the_ledger_does_not_know_is_found_by_its_key(
    bench: Bench, unfinished: ModelService, lost: str
) -> None:
    ledger = bench.ledger
    ledger.lines[0].parts[0].request_id = None
    bench.file.save(ledger) if lost == "request id" else bench.file.forget()
    unfinished.finish()

    assert bench.run().jobs == ("batch_1",)
    assert len(unfinished.jobs) == 1
    assert bench.heard.notes == ["Job batch_1 was posted before; picking it up."]


def test_with_cancel_an_interruption_ends_the_jobs_and_the_same_command_goes_on_with_them(
    bench: Bench, service: ModelService
) -> None:
    service.hold = True
    leave_unfinished(bench, Options(cancel=True))

    assert service.jobs["batch_1"].status == "cancelled"
    assert bench.ledger.stopped is not None
    bench.run()

    assert "/batch-generate/batch_1/retry-failed" in [seen.path for seen in service.seen]
    assert len(service.jobs) == 1


def test_a_cancelled_job_whose_ledger_was_lost_goes_on_too(
    bench: Bench, service: ModelService
) -> None:
    service.hold = True
    leave_unfinished(bench, Options(cancel=True))
    bench.file.forget()

    summary = bench.run()

    assert "/batch-generate/batch_1/retry-failed" in [seen.path for seen in service.seen]
    assert (summary.jobs, len(service.jobs)) == (("batch_1",), 1)


def test_a_service_that_is_away_is_waited_for_and_that_is_said(
    bench: Bench, service: Service
) -> None:
    away = problem(503, "unavailable", "Away.", Retry_After="1")
    bench.heard.on_sent = lambda: service.faults.append(away)

    assert bench.run().rows == 3
    assert bench.heard.notes == ["Waiting for the service: Away.", "The service is there again."]


def test_a_service_without_room_is_asked_again(bench: Bench, service: Service) -> None:
    full = problem(429, "rate_limit_exceeded", "Your limit is reached.", Retry_After="1")
    bench.heard.on_scanned = lambda: service.faults.append(full)

    assert bench.run().rows == 3
    assert "Your limit is reached. The rest is sent when there is room." in bench.heard.notes
    assert len(service.jobs) == 1


@pytest.mark.parametrize("changed", ["table", "template", "model"])
def test_a_change_since_an_unfinished_run_is_refused_in_one_sentence(
    bench: Bench, unfinished: ModelService, changed: str
) -> None:
    changes: dict[str, Any] = {"template": "No {{ text }}"} if changed == "template" else {}
    names = {"table": r"in\.csv", "template": "The task", "model": "The model, now large and then"}
    if changed == "table":
        bench.table.write_text("id,text\n1,new\n")
    if changed == "model":
        unfinished.model = "large"

    with pytest.raises(InvalidRequest, match=rf"{names[changed]}.* has changed since .*--fresh"):
        bench.run(**changes)

    assert len(unfinished.jobs) == 1


def test_a_run_whose_output_another_command_has_taken_ends_and_writes_nothing(
    bench: Bench, service: ModelService
) -> None:
    service.hold = True
    other = Bench(bench.folder, bench.client, Heard(on_progress=interrupt))

    def begin_another() -> None:
        bench.heard.on_progress = nothing
        with pytest.raises(KeyboardInterrupt):
            other.run(Options(fresh=True), template="Tell {{ text }}")
        service.finish()

    bench.heard.on_progress = begin_another
    with pytest.raises(InvalidRequest, match="Another command began another run with"):
        bench.run()

    assert not bench.output.exists()
    assert bench.ledger.task["template"] == "Tell {{ text }}"
    other.heard.on_progress = nothing
    assert other.run(template="Tell {{ text }}").rows == 3


def test_what_is_done_with_the_answers_may_change(bench: Bench, unfinished: ModelService) -> None:
    unfinished.finish()

    assert bench.run(prefix="new_").jobs == ("batch_1",)
    assert "new_answer" in bench.rows()[0]


def test_after_a_finished_run_another_question_is_simply_asked(
    bench: Bench, service: ModelService
) -> None:
    bench.run()

    assert bench.run(template="Tell {{ text }}").jobs == ("batch_2",)
    service.model = "large"
    assert bench.run().jobs == ("batch_3",)
    assert service.jobs["batch_3"].fields["model"] == "large"


def test_a_finished_run_is_written_again_without_another_job(
    bench: Bench, service: Service
) -> None:
    receipt = bench.run().receipt
    bench.output.unlink()

    again = bench.run()

    assert (again.jobs, again.receipt) == (("batch_1",), receipt)
    assert bench.output.exists()


def test_what_failed_is_tried_again_when_it_is_asked_for(bench: Bench, service: Service) -> None:
    bench.run()

    bench.run(Options(retry_failed=True))

    assert "/batch-generate/batch_1/retry-failed" in [seen.path for seen in service.seen]


def test_fresh_cancels_the_unfinished_run_and_starts_a_new_one(
    bench: Bench, unfinished: ModelService
) -> None:
    unfinished.hold = False

    assert bench.run(Options(fresh=True)).jobs == ("batch_2",)

    assert unfinished.jobs["batch_1"].status == "cancelled"
    assert bench.heard.notes == ["The earlier run is cancelled: 1 job."]
    assert bench.run().jobs == ("batch_2",)


def test_a_job_that_the_service_does_not_have_is_posted_anew(
    bench: Bench, service: Service
) -> None:
    bench.run()
    service.jobs.clear()

    assert bench.run().rows == 3
    assert bench.heard.notes == ["Job batch_1 is not on this service; it is posted anew."]


def test_a_damaged_ledger_is_a_sentence_and_fresh_ignores_it(
    bench: Bench, service: Service
) -> None:
    bench.file.path.write_text("{")

    with pytest.raises(InvalidRequest, match="cannot be read; move it away"):
        bench.run()
    assert bench.run(Options(fresh=True)).rows == 3


def test_a_failure_while_writing_leaves_the_earlier_output_and_no_rest(
    bench: Bench, service: Service
) -> None:
    bench.output.write_text("earlier")
    bench.heard.on_progress = lambda: service.faults.append(problem(404, "not_found", "Gone."))

    with pytest.raises(NotFound):
        bench.run()

    assert bench.output.read_text() == "earlier"
    assert not list(bench.folder.glob(".*"))


def test_the_night_between_a_pilot_and_the_rest_is_not_the_runs_time(
    bench: Bench, service: Service
) -> None:
    bench.run(Options(pilot_rows=2))
    ledger = bench.ledger
    assert ledger.started is not None
    assert ledger.ended is not None
    ledger.started, ledger.ended = ledger.started - 9_000, ledger.ended - 9_000
    bench.file.save(ledger)

    assert bench.run(Options(promote=True)).receipt.seconds < 9_000


def test_a_pilot_is_gone_on_with_and_no_row_is_asked_twice(
    bench: Bench, service: ModelService
) -> None:
    bench.table.write_text("text\n" + "".join(f"row {n}\n" for n in range(20)))

    pilot = bench.run(Options(pilot_rows=5))
    piloted = [row["text"] for row in bench.rows()]
    with pytest.raises(InvalidRequest, match="pilot of 5 rows: `run --promote` goes on"):
        bench.run()
    whole = bench.run(Options(promote=True))

    assert (pilot.rows, whole.rows, len(piloted)) == (5, 20, 5)
    assert [row["answer"] for row in bench.rows()] == [f"echo: Say row {n}" for n in range(20)]
    assert sorted(service.asked()) == sorted(f"Say row {n}" for n in range(20))
    assert bench.run(Options(promote=True)).jobs == whole.jobs
    with pytest.raises(InvalidRequest, match="of the whole table already"):
        bench.run(Options(pilot_rows=5))
