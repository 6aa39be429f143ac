"""`/v1/batches` with OpenAI's own client on a real port: from an input file to both outputs."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any, Final

import openai
import pytest
from openai import OpenAI
from openai.types import Batch
from sqlalchemy import text
from starlette.testclient import TestClient

from api.dependencies import get_owner
from penstock.errors import PromptError
from penstock.ids import new_id
from storage import leases, lifecycle
from storage.database import Database
from storage.quota import Amount, Limits
from storage.states import Lane
from tests.contract.conftest import MakeClient
from tests.contract.support import check_shape, settle, until, working
from tests.support import jobs

JSON = {"Content-Type": "application/json"}
CHAT: Final = "/v1/chat/completions"
TEXT: Final = "/v1/completions"
DONE = ("completed", "failed", "cancelled", "expired")
LINES = 1_000
#: By line, what is wrong there.
BAD: dict[int, tuple[bytes | None, str, str | None]] = {
    7: (b"{not JSON", "invalid_json_line", None),
    100: (b"[1, 2]", "invalid_json_line", None),
    150: (None, "duplicate_custom_id", "custom_id"),
    200: (b"\xff\xfe", "invalid_json_line", None),
    333: (None, "url_mismatch", "url"),
    400: (None, "model_not_found", "body.model"),
    500: (None, "invalid_request", "body.temperature"),
    600: (None, "missing_required_parameter", "body"),
    800: (None, "unsupported_parameter", "body.tools"),
    1_000: (None, "invalid_method", "method"),
}


def line(name: str, text: str = "hello", url: str = CHAT, **body: object) -> dict[str, Any]:
    asked = {"messages": [{"role": "user", "content": text}]} if url == CHAT else {"prompt": text}
    body = {"model": jobs.MODEL, "max_tokens": 8, **asked, **body}
    return {"custom_id": name, "method": "POST", "url": url, "body": body}


def jsonl(*lines: object) -> bytes:
    return b"".join(
        (one if isinstance(one, bytes) else json.dumps(one).encode()) + b"\n" for one in lines
    )


def thousand_with_ten_bad() -> bytes:
    lines: list[Any] = [line(f"row-{n}") for n in range(1, LINES + 1)]
    for number, (content, _, _) in BAD.items():
        if content is not None:
            lines[number - 1] = content
    lines[149]["custom_id"] = "row-1"
    lines[332]["url"] = TEXT
    lines[399]["body"]["model"] = "nobody's"
    lines[499]["body"]["temperature"] = 3
    del lines[599]["body"]
    lines[799]["body"]["tools"] = [{"type": "function", "function": {"name": "f"}}]
    lines[999]["method"] = "GET"
    return jsonl(*lines)


@pytest.fixture
def api(live: str) -> Iterator[OpenAI]:
    with OpenAI(api_key="none", base_url=f"{live}/v1", max_retries=0, timeout=20) as client:
        yield client


def create(api: OpenAI, content: bytes, url: str = CHAT, **more: Any) -> Batch:
    file = api.files.create(file=("in.jsonl", content), purpose="batch")
    return api.batches.create(
        input_file_id=file.id,
        endpoint=url,  # type: ignore[arg-type]  # one of two
        completion_window="24h",
        **more,
    )


def ended(api: OpenAI, batch: Batch) -> Batch:
    def look() -> Batch | None:
        found = api.batches.retrieve(batch.id)
        return found if found.status in DONE else None

    return until(look)


def was_read(api: OpenAI, batch: Batch) -> Batch:
    def look() -> Batch | None:
        found = api.batches.retrieve(batch.id)
        return found if found.status != "validating" else None

    return until(look)


def download(api: OpenAI, file_id: str | None) -> list[dict[str, Any]]:
    assert file_id is not None
    return [json.loads(one) for one in api.files.content(file_id).text.splitlines()]


def test_ten_bad_lines_in_a_thousand_fail_the_batch_and_each_is_named(
    api: OpenAI, database: Database
) -> None:
    batch = create(api, thousand_with_ten_bad(), metadata={"set": "one"})
    assert (batch.status, batch.metadata) == ("validating", {"set": "one"})

    with working(database):
        failed = ended(api, batch)

    assert failed.status == "failed"
    assert failed.errors is not None and failed.errors.data is not None
    found = {error.line: (error.code, error.param) for error in failed.errors.data}
    assert found == {number: (code, param) for number, (_, code, param) in BAD.items()}
    assert all(error.message for error in failed.errors.data)
    assert failed.failed_at is not None and failed.in_progress_at is None
    assert (failed.output_file_id, failed.error_file_id) == (None, None)
    assert failed.request_counts is not None and failed.request_counts.total == 0
    assert [file.purpose for file in api.files.list()] == ["batch"]


def test_in_quarantine_the_good_lines_run_and_both_files_tell_the_rest(
    api: OpenAI, database: Database
) -> None:
    batch = create(api, thousand_with_ten_bad(), extra_body={"on_invalid_line": "quarantine"})

    with working(database):
        done = ended(api, batch)

    assert done.status == "completed"
    assert done.request_counts is not None
    counts = done.request_counts
    assert (counts.total, counts.completed, counts.failed) == (1_000, 990, 10)
    outputs = download(api, done.output_file_id)
    good = [number for number in range(1, LINES + 1) if number not in BAD]
    assert [one["custom_id"] for one in outputs] == [f"row-{number}" for number in good]
    answer = outputs[0]["response"]
    assert (answer["status_code"], outputs[0]["error"]) == (200, None)
    assert answer["body"]["object"] == "chat.completion"
    assert answer["body"]["choices"][0]["message"]["content"] == "answer 0"
    assert answer["body"]["usage"]["total_tokens"] == 5
    errors = download(api, done.error_file_id)
    assert [one["error"]["code"] for one in errors] == [code for _, code, _ in BAD.values()]
    assert [one["error"]["message"].split(":")[0] for one in errors] == [
        f"Line {number}" for number in BAD
    ]
    assert {one["response"] for one in errors} == {None}
    assert errors[4]["custom_id"] == "row-333"
    assert len({one["id"] for one in outputs + errors}) == LINES
    _check_times(done)
    assert done.usage is not None and done.usage.total_tokens == 990 * 5


def _check_times(done: Batch) -> None:
    times = [done.created_at, done.in_progress_at, done.finalizing_at, done.completed_at]
    assert None not in times
    assert times == sorted(times, key=lambda time: time or 0)
    assert abs(done.created_at - time.time()) < 60
    assert done.expires_at == done.created_at + 86_400
    others = (done.failed_at, done.expired_at, done.cancelling_at, done.cancelled_at)
    assert others == (None, None, None, None)


def test_files_are_there_as_soon_as_there_is_a_line_and_whole_at_the_end(
    api: OpenAI, database: Database
) -> None:
    names = [f"row-{n}" for n in range(200)]
    batch = was_read(api, create(api, jsonl(*map(line, names))))
    assert (batch.status, batch.output_file_id) == ("in_progress", None)
    assert len(api.files.list().data) == 1
    (shard, *_) = jobs.claim(database)
    jobs.admit(database, shard)
    jobs.commit(database, shard)

    running = api.batches.retrieve(batch.id)
    assert running.output_file_id is not None and running.error_file_id is None
    partly = api.files.with_raw_response.content(running.output_file_id)
    assert partly.headers["X-Incomplete"] == "true"
    assert len(partly.text.splitlines()) == len(shard.requests)
    settle(database)

    assert ended(api, batch).output_file_id == running.output_file_id
    file = until(lambda: _counted(api, str(running.output_file_id)))
    whole = api.files.with_raw_response.content(file.id)
    assert "X-Incomplete" not in whole.headers
    assert int(whole.headers["Content-Length"]) == file.bytes == len(whole.content)
    assert [json.loads(one)["custom_id"] for one in whole.text.splitlines()] == names
    assert (file.purpose, file.filename) == ("batch_output", f"{batch.id}_output.jsonl")
    assert {one.id for one in api.files.list(purpose="batch_output")} == {file.id}


def _counted(api: OpenAI, file_id: str) -> Any:
    file = api.files.retrieve(file_id)
    return file if file.bytes else None


def test_text_completions_come_in_batches_too(api: OpenAI, worker: None) -> None:
    batch = create(api, jsonl(line("a", url=TEXT), line("b", url=TEXT, logprobs=None)), url=TEXT)

    done = ended(api, batch)

    bodies = [one["response"]["body"] for one in download(api, done.output_file_id)]
    assert [body["object"] for body in bodies] == ["text_completion"] * 2
    assert (done.endpoint, done.model) == (TEXT, jobs.MODEL)


def test_a_cancelled_batch_says_when_and_keeps_what_was_done(
    api: OpenAI, database: Database
) -> None:
    batch = was_read(api, create(api, jsonl(*(line(f"row-{n}") for n in range(130)))))
    (shard, *_) = jobs.claim(database)
    jobs.admit(database, shard)
    jobs.commit(database, shard, [shard.requests[0].position])

    cancelling = api.batches.cancel(batch.id)
    assert cancelling.status == "cancelling"
    assert cancelling.cancelling_at is not None and cancelling.cancelled_at is None
    settle(database)

    cancelled = ended(api, batch)
    assert (cancelled.status, cancelled.finalizing_at) == ("cancelled", None)
    assert cancelled.cancelled_at is not None
    assert cancelled.cancelling_at == cancelling.cancelling_at
    assert len(download(api, cancelled.output_file_id)) == 1
    errors = download(api, cancelled.error_file_id)
    assert {(one["error"]["code"], one["response"]) for one in errors} == {
        ("batch_cancelled", None)
    }
    assert api.batches.cancel(batch.id).status == "cancelled"


def test_what_runs_out_of_time_and_what_fails_in_the_engine_is_told_apart(
    api: OpenAI, database: Database
) -> None:
    batch = was_read(api, create(api, jsonl(*map(line, "abc"))))
    (shard,) = jobs.claim(database)
    jobs.admit(database, shard)
    outcomes = [jobs.failure(0), jobs.failure(1, PromptError.ENGINE)]
    with database.begin() as conn:
        leases.commit(conn, shard.id, shard.epoch, outcomes, jobs.LEASE)
        conn.execute(text("UPDATE batches SET expires_at = now() - interval '1s'"))
        assert lifecycle.expire_due(conn) == 1
    settle(database)

    expired = ended(api, batch)
    assert expired.status == "expired"
    assert expired.expired_at is not None and expired.finalizing_at is not None
    one, two, three = download(api, expired.error_file_id)
    assert one["response"]["status_code"] == 400
    assert one["response"]["body"]["error"]["code"] == "context_length_exceeded"
    assert (two["response"]["status_code"], two["error"]) == (500, None)
    assert (three["response"], three["error"]["code"]) == (None, "batch_expired")


@pytest.mark.parametrize(
    ("content", "code"),
    [(b"", "empty_file"), (b"\n" * 9, "empty_file"), (b"{}\n" * 1_001, "too_many_errors")],
)
def test_a_file_that_is_no_batch_fails_with_the_reason(
    api: OpenAI, database: Database, content: bytes, code: str
) -> None:
    batch = ended(api, create(api, content))

    assert batch.status == "failed"
    assert batch.errors is not None and batch.errors.data is not None
    assert batch.errors.data[-1].code == code


def test_a_batch_with_more_lines_than_allowed_fails_and_keeps_nothing(
    api: OpenAI, database: Database
) -> None:
    batch = ended(api, create(api, jsonl(*(line(f"row-{n}") for n in range(1_001)))))

    assert batch.errors is not None and batch.errors.data is not None
    assert [error.code for error in batch.errors.data] == ["too_many_tasks"]
    with database.begin() as conn:
        assert conn.execute(text("SELECT count(*) FROM requests")).scalar_one() == 0


def test_a_batch_whose_every_line_is_bad_or_fails_says_so(api: OpenAI, worker: None) -> None:
    batch = ended(api, create(api, b"{\n{\n", extra_body={"on_invalid_line": "quarantine"}))

    assert batch.status == "failed"
    assert batch.errors is not None and batch.errors.data is not None
    assert [error.code for error in batch.errors.data] == ["all_requests_failed"]
    assert len(download(api, batch.error_file_id)) == 2


def test_a_full_queue_fails_the_batch_and_not_its_post(
    make_client: MakeClient, database: Database
) -> None:
    few, many = Amount(9, 4, 9_999), Amount(99, 999, 999_999)
    client = make_client(limits={Lane.BULK: Limits(few, many)})
    api = OpenAI(api_key="none", base_url="http://testserver/v1", http_client=client)

    small = was_read(api, create(api, jsonl(*map(line, "abc"))))
    large = ended(api, create(api, jsonl(*map(line, "de"))))

    assert (small.status, large.status) == ("in_progress", "failed")
    assert large.errors is not None and large.errors.data is not None
    assert [error.code for error in large.errors.data] == ["rate_limit_exceeded"]


def test_batches_are_listed_page_by_page_and_jobs_are_not_among_them(
    api: OpenAI, database: Database
) -> None:
    file = api.files.create(file=("in.jsonl", jsonl(line("a"))), purpose="batch")
    ids = [
        api.batches.create(input_file_id=file.id, endpoint=CHAT, completion_window="24h").id
        for _ in range(5)
    ]
    job = jobs.store(database)

    assert [batch.id for batch in api.batches.list(limit=2)] == ids[::-1]
    page = api.batches.list(limit=2)
    assert ([batch.id for batch in page.data], page.has_more) == (ids[:-3:-1], True)
    assert [batch.id for batch in api.batches.list(after=ids[1]).data] == ids[:1]
    with pytest.raises(openai.NotFoundError):
        api.batches.retrieve(job.id)


def test_one_post_under_a_key_makes_one_batch(client: TestClient) -> None:
    form = {"files": {"file": ("f", jsonl(line("a")))}, "data": {"purpose": "batch"}}
    file_id = client.post("/v1/files", **form).json()["id"]  # type: ignore[arg-type]
    body = {"input_file_id": file_id, "endpoint": CHAT, "completion_window": "24h"}
    key = {"Idempotency-Key": "once"}

    first = client.post("/v1/batches", json=body, headers=key)
    client.delete(f"/v1/files/{file_id}")
    second = client.post("/v1/batches", json=body, headers=key)
    other = client.post("/v1/batches", json=body | {"priority": 1}, headers=key)

    assert (first.status_code, second.status_code) == (200, 200)
    assert first.json()["id"] == second.json()["id"]
    assert second.headers["Idempotent-Replayed"] == "true"
    assert (other.status_code, check_shape(other)["code"]) == (400, "idempotency_mismatch")
    assert len(client.get("/v1/batches").json()["data"]) == 1


GOOD = {"input_file_id": "file_" + "0" * 32, "endpoint": CHAT, "completion_window": "24h"}


@pytest.mark.parametrize(
    ("change", "status", "param"),
    [
        ({}, 404, "input_file_id"),
        ({"priority": None, "on_invalid_line": None, "metadata": None}, 404, "input_file_id"),
        ({"input_file_id": None}, 400, "input_file_id"),
        ({"input_file_id": "a\0"}, 400, "input_file_id"),
        ({"endpoint": "/v1/embeddings"}, 400, "endpoint"),
        ({"completion_window": "1 day"}, 400, "completion_window"),
        ({"completion_window": "721h"}, 400, "completion_window"),
        ({"metadata": {"k" * 65: "v"}}, 400, "metadata"),
        ({"metadata": {"k": "v" * 513}}, 400, "metadata.k"),
        ({"metadata": {str(n): "v" for n in range(17)}}, 400, "metadata"),
        ({"on_invalid_line": "ignore"}, 400, "on_invalid_line"),
        (
            {"output_expires_after": {"anchor": "created_at", "seconds": 60}},
            400,
            "output_expires_after.seconds",
        ),
        ({"stream": True}, 400, "stream"),
    ],
    ids=str,
)
def test_a_wrong_post_is_refused_by_name(
    client: TestClient, change: dict[str, object], status: int, param: str
) -> None:
    answer = client.post("/v1/batches", json=GOOD | change)

    assert answer.status_code == status, answer.text
    assert str(check_shape(answer)["param"]).startswith(param)


def test_text_of_metadata_that_cannot_be_stored_is_refused(client: TestClient) -> None:
    form = {"files": {"file": ("f", jsonl(line("a")))}, "data": {"purpose": "batch"}}
    file_id = client.post("/v1/files", **form).json()["id"]  # type: ignore[arg-type]
    change = {"input_file_id": file_id, "metadata": {"k": "\ud800"}}

    answer = client.post("/v1/batches", content=json.dumps(GOOD | change), headers=JSON)

    assert answer.status_code == 400
    assert check_shape(answer)["param"] == "metadata.k"


def test_an_unknown_id_and_another_owners_are_the_same_404(
    api: OpenAI, client: TestClient, database: Database
) -> None:
    with working(database):
        batch = ended(api, create(api, jsonl(line("a"))))
    client.app.dependency_overrides[get_owner] = lambda: "somebody else"  # type: ignore[attr-defined]

    answers = [
        client.request(method, f"/v1/{path}")
        for one in (batch.id, new_id("batch"), "batch_1", "%00")
        for method, path in (("GET", f"batches/{one}"), ("POST", f"batches/{one}/cancel"))
    ]
    answers += [
        client.get(f"/v1/files/{batch.output_file_id}"),
        client.get(f"/v1/files/{batch.output_file_id}/content"),
        client.post("/v1/batches", json=GOOD | {"input_file_id": batch.input_file_id}),
    ]

    assert {answer.status_code for answer in answers} == {404}
    assert {check_shape(answer)["code"] for answer in answers} == {"not_found"}
    assert client.get("/v1/batches").json()["data"] == []
    assert client.get(f"/v1/batches?after={batch.id}").json()["data"] == []
