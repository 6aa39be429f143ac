"""Interrupted at any moment, the same command goes on with the same job."""

from __future__ import annotations

import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from penstock.annotation.plan import Plan
from penstock.annotation.state import StateFile
from penstock.errors import InvalidRequest, NotFound, Unavailable
from tests.support.service import Service, problem
from tests.unit.annotation.conftest import Annotate, Heard, ModelService, nothing


def interrupt() -> None:
    raise KeyboardInterrupt


@pytest.fixture
def state(plan: Plan) -> StateFile:
    return StateFile(plan.output)


@pytest.fixture
def leave_unfinished(annotate: Annotate, service: Service, heard: Heard) -> Callable[[], None]:
    """Run until the job is posted, then Ctrl-C; the job ends later by itself."""

    def leave() -> None:
        service.hold = True
        heard.on_posted = interrupt
        with pytest.raises(KeyboardInterrupt):
            annotate()
        heard.on_posted = nothing

    return leave


def test_the_state_is_private(annotate: Annotate, state: StateFile) -> None:
    annotate()

    assert stat.S_IMODE(state.path.stat().st_mode) == 0o600


def test_after_an_interruption_the_same_job_is_picked_up(
    annotate: Annotate,
    service: Service,
    heard: Heard,
    plan: Plan,
    leave_unfinished: Callable[[], None],
) -> None:
    leave_unfinished()
    service.finish()

    summary = annotate()

    assert summary.request_id == "batch_1"
    assert len(service.jobs) == 1
    assert heard.notes == ["Picking up job batch_1."]
    assert plan.output.exists()


def test_an_interrupted_upload_makes_one_job_in_the_end(
    annotate: Annotate, service: Service, heard: Heard, plan: Plan
) -> None:
    plan.input.write_text("id,text\n" + "".join(f"{n},{'x' * 200}\n" for n in range(3_000)))
    heard.on_sending = interrupt
    with pytest.raises(KeyboardInterrupt):
        annotate()
    heard.on_sending = nothing

    assert annotate().rows == 3_000
    assert len(service.jobs) == 1


def test_an_interruption_between_the_post_and_the_state_makes_no_second_job(
    annotate: Annotate,
    service: Service,
    state: StateFile,
    heard: Heard,
    leave_unfinished: Callable[[], None],
) -> None:
    leave_unfinished()
    record = state.load()
    assert record is not None
    service.finish()

    state.save(record.model_copy(update={"request_id": None}))
    assert annotate().request_id == "batch_1"
    state.forget()
    heard.notes.clear()
    heard.on_posted = interrupt  # it was stored long ago: nobody says so again
    assert annotate().request_id == "batch_1"
    assert heard.notes == ["Job batch_1 was posted before; picking it up."]


def test_an_outage_during_the_post_is_gone_on_from(annotate: Annotate, service: Service) -> None:
    service.faults.append(problem(503, "unavailable", "Away.", Retry_After="9"))
    with pytest.raises(Unavailable):
        annotate()

    assert annotate().rows == 3
    assert len(service.jobs) == 1


@pytest.mark.parametrize("changed", ["input", "template", "field"])
def test_a_change_since_an_unfinished_job_is_refused_in_one_sentence(
    annotate: Annotate,
    plan: Plan,
    service: Service,
    leave_unfinished: Callable[[], None],
    changed: str,
) -> None:
    leave_unfinished()
    changes: dict[str, dict[str, Any]] = {
        "template": {"template": "No {text}"},
        "field": {"fields": {"max_tokens": 6}},
    }
    if changed == "input":
        plan.input.write_text("id,text\n1,new\n")

    with pytest.raises(InvalidRequest, match=r"has changed since the unfinished job .*--fresh"):
        annotate(**changes.get(changed, {}))

    assert len(service.jobs) == 1


def test_an_unfinished_job_of_another_model_is_not_picked_up(
    annotate: Annotate, service: ModelService, leave_unfinished: Callable[[], None]
) -> None:
    leave_unfinished()
    service.finish()
    service.model = "large"

    with pytest.raises(InvalidRequest, match=r"The model, now large and then tiny, .*--fresh"):
        annotate()
    assert annotate(fields={"max_tokens": 5, "model": "tiny"}).request_id == "batch_1"


def test_after_a_finished_run_another_model_is_asked_anew(
    annotate: Annotate, service: ModelService
) -> None:
    annotate()
    service.model = "large"

    assert annotate().request_id == "batch_2"
    assert service.jobs["batch_2"].fields["model"] == "large"


def test_fresh_cancels_the_unfinished_job_and_starts_a_new_one(
    annotate: Annotate, service: Service, heard: Heard, leave_unfinished: Callable[[], None]
) -> None:
    leave_unfinished()
    service.hold = False

    fresh = annotate(fresh=True)

    assert service.jobs["batch_1"].status == "cancelled"
    assert heard.notes == ["The earlier job batch_1 is cancelled."]
    assert fresh.request_id == "batch_2"
    assert annotate().request_id == "batch_2"


def test_after_a_finished_run_another_question_is_simply_asked(
    annotate: Annotate, service: Service
) -> None:
    annotate()

    assert annotate(template="Tell {text}").request_id == "batch_2"


def test_a_finished_run_is_written_again_without_a_second_job(
    annotate: Annotate, service: Service, plan: Plan
) -> None:
    annotate()
    plan.output.unlink()

    assert annotate().request_id == "batch_1"
    assert plan.output.exists()


def test_a_job_that_the_service_does_not_have_is_posted_anew(
    annotate: Annotate, service: Service, heard: Heard
) -> None:
    annotate()
    service.jobs.clear()

    assert annotate().rows == 3
    assert heard.notes == ["Job batch_1 is not on this service; it is posted anew."]


def test_a_damaged_state_file_is_a_sentence_and_fresh_ignores_it(
    annotate: Annotate, state: StateFile
) -> None:
    state.path.write_text("{")

    with pytest.raises(InvalidRequest, match="cannot be read; --fresh"):
        annotate()
    assert annotate(fresh=True).rows == 3


def test_a_failure_while_writing_leaves_the_earlier_output_and_no_rest(
    annotate: Annotate, plan: Plan, service: Service, heard: Heard, tmp_path: Path
) -> None:
    plan.output.write_text("earlier")
    heard.on_progress = lambda: service.faults.append(problem(404, "not_found", "Gone."))

    with pytest.raises(NotFound):
        annotate()

    assert plan.output.read_text() == "earlier"
    assert not list(tmp_path.glob(".*"))
