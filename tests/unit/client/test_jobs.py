"""What the SDK sends and what it makes of the answers."""

from __future__ import annotations

import pytest

from penstock.client import Client
from penstock.errors import InvalidRequest, NotFound, PenstockError, TooLarge, Unauthorized
from penstock.schemas.batch import BatchResult, JobStatus
from tests.support.service import Service, problem


def test_a_job_is_streamed_with_its_key_and_its_fields(service: Service, client: Client) -> None:
    chat = [{"role": "user", "content": "ü"}]

    job = client.submit(["one", chat], idempotency_key="k", max_tokens=3)

    stored = service.jobs[job.id]
    assert stored.messages == ["one", chat]
    assert stored.fields == {"max_tokens": 3}
    assert stored.key == "k"
    headers = service.seen[0].headers
    assert headers["transfer-encoding"] == "chunked"
    assert headers["authorization"] == "Bearer secret"


def test_every_post_has_a_key_of_its_own(service: Service, client: Client) -> None:
    first, second = client.submit(["a"]), client.submit(["a"])

    assert first.id != second.id
    assert not first.replayed


def test_the_same_key_and_body_give_the_same_job(client: Client) -> None:
    first = client.submit(["a"], idempotency_key="k")
    second = client.submit(["a"], idempotency_key="k")

    assert first.id == second.id
    assert second.replayed


def test_a_large_body_arrives_whole_and_in_order(service: Service, client: Client) -> None:
    messages = [f"{number} " + "x" * 500 for number in range(2_000)]

    job = client.submit(messages)

    assert service.jobs[job.id].messages == messages


def test_a_lone_surrogate_reaches_the_service_as_an_escape(
    service: Service, client: Client
) -> None:
    job = client.submit(["bad \ud800", "good"])

    assert b"bad \\ud800" in service.jobs[job.id].body


def test_a_wrong_field_is_refused_by_name_before_anything_is_sent(
    service: Service, client: Client
) -> None:
    with pytest.raises(InvalidRequest) as caught:
        client.submit(["a"], max_tokens=0)
    assert caught.value.param == "max_tokens"
    with pytest.raises(InvalidRequest) as caught:
        client.submit(["a"], surprise=1)
    assert caught.value.param == "surprise"
    with pytest.raises(InvalidRequest):
        client.submit("one text is no list")

    assert service.seen == []


def test_answers_come_page_by_page_in_order_with_reasons(service: Service, client: Client) -> None:
    messages = [f"m{number}" for number in range(7)]
    messages[4] = "fail"

    answers = list(client.submit(messages).results(page=3))

    assert [answer.index for answer in answers] == list(range(7))
    assert answers[0].text == "echo: m0"
    assert (answers[4].text, answers[4].code, answers[4].message) == (
        None,
        "engine_error",
        "It failed.",
    )
    assert [seen.query["offset"] for seen in service.seen[1:]] == ["0", "3", "6"]


def test_answers_have_their_tokens_and_tell_which_were_computed_for_others(
    service: Service, client: Client
) -> None:
    job = client.submit(["a", "fail", "c"])
    untold = [(answer.tokens, answer.reused) for answer in job.results()]
    service.tokens = lambda message: (len(message), 2)
    service.reused = lambda message: message == "c"

    told = [(answer.tokens, answer.reused) for answer in job.results(page=2)]

    assert untold == [(None, False)] * 3
    assert told == [((1, 2), False), ((4, 2), False), ((1, 2), True)]


def test_tokens_are_counted_without_an_answer(client: Client) -> None:
    job = client.submit(["one two", "three"], mode="count", choices=["yes", "no no"])

    first, second = job.results()

    assert (first.text, first.tokens, second.tokens) == ("", (2, 0), (1, 0))
    assert first.detail == {"choices": {"yes": [3], "no no": [2, 2]}}


def test_waiting_ends_with_the_job_and_tells_the_progress(service: Service, client: Client) -> None:
    service.hold = True
    looks: list[BatchResult] = []

    def look(progress: BatchResult) -> None:
        looks.append(progress)
        service.finish()

    end = client.submit(["a"]).wait(30, poll=0, on_progress=look)

    assert [progress.status for progress in looks] == [JobStatus.PROCESSING, JobStatus.COMPLETED]
    assert end.processing_time == 1.5
    assert end.responses is None


def test_waiting_has_a_limit(service: Service, client: Client) -> None:
    service.hold = True

    with pytest.raises(TimeoutError, match="batch_1 did not end"):
        client.submit(["a"]).wait(0.05)


def test_a_job_can_be_cancelled_by_its_id(service: Service, client: Client) -> None:
    service.hold = True
    job = client.submit(["a"])

    assert client.job(job.id).cancel().status is JobStatus.CANCELLED


def test_a_chat_keeps_its_conversation(client: Client) -> None:
    first = client.chat("hello")
    second = client.chat("again", conversation_id="conv_7", max_tokens=5)

    assert (first.response, first.conversation_id) == ("echo: hello", "conv_1")
    assert second.conversation_id == "conv_7"


@pytest.mark.parametrize(
    ("status", "code", "kind"),
    [
        (422, "invalid_request", InvalidRequest),
        (404, "not_found", NotFound),
        (401, "invalid_api_key", Unauthorized),
        (413, "too_large", TooLarge),
        (400, "a_code_from_the_future", InvalidRequest),
        (418, "teapot", PenstockError),
    ],
)
def test_a_problem_becomes_its_error_with_the_field(
    service: Service, client: Client, status: int, code: str, kind: type[PenstockError]
) -> None:
    service.faults.append(problem(status, code, "Too short.", "messages"))

    with pytest.raises(kind) as caught:
        client.submit(["a"])

    assert type(caught.value) is kind
    assert (caught.value.message, caught.value.param) == ("Too short.", "messages")
    assert len(service.seen) == 1


def test_the_final_error_of_a_prompt_is_not_asked_for_again(
    service: Service, client: Client
) -> None:
    service.faults.append(problem(503, "engine_error", "The model raised.", Retry_After="1"))

    with pytest.raises(PenstockError, match=r"The model raised\."):
        client.chat("hello")

    assert len(service.seen) == 1
