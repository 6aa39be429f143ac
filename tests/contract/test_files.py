"""`/v1/files` over HTTP, with OpenAI's own client where it has the call."""

from __future__ import annotations

import time
from typing import Any

import httpx2
import openai
import pytest
from openai import OpenAI
from starlette.testclient import TestClient

from api.dependencies import get_owner
from penstock.ids import new_id
from storage.blobs import LocalBlobs
from storage.database import Database
from storage.files import FileLimits
from tests.contract.conftest import MakeClient
from tests.contract.support import check_shape
from tests.support.keys import SECRET, add, bearer

UNKNOWN = "file_" + "0" * 32
LINES = b'{"a": 1}\n{"b": 2}\n'


def sdk(client: TestClient) -> OpenAI:
    return OpenAI(
        api_key="none", base_url="http://testserver/v1", http_client=client, max_retries=0
    )


def upload(client: TestClient, content: bytes = LINES, name: str = "in.jsonl") -> str:
    return sdk(client).files.create(file=(name, content), purpose="batch").id


def raw(client: TestClient, content: bytes = LINES, **fields: str) -> httpx2.Response:
    return client.post("/v1/files", files={"file": ("in.jsonl", content)}, data=fields)


def test_a_file_is_uploaded_told_of_read_and_deleted(client: TestClient, blobs: LocalBlobs) -> None:
    api = sdk(client)

    made = api.files.create(file=("C:\\data\\größe.jsonl", LINES), purpose="batch")

    assert (made.bytes, made.purpose, made.status) == (len(LINES), "batch", "processed")
    assert made.filename == "größe.jsonl"
    assert made.expires_at is not None
    assert abs(made.expires_at - made.created_at - 30 * 86_400) <= 1
    assert abs(made.created_at - time.time()) < 60
    assert api.files.retrieve(made.id) == made
    assert api.files.content(made.id).content == LINES
    assert api.files.delete(made.id).deleted
    for gone in (api.files.retrieve, api.files.content, api.files.delete):
        with pytest.raises(openai.NotFoundError):
            gone(made.id)
    assert list(blobs.idle(-60)) == []


def test_content_comes_with_its_length_and_runs_in_no_browser(client: TestClient) -> None:
    content = b"<script>" + b"x" * 1_000_000
    file_id = upload(client, content, 'a\r\nb";.html')

    answer = client.get(f"/v1/files/{file_id}/content")

    assert answer.content == content
    assert answer.headers["Content-Length"] == str(len(content))
    assert answer.headers["Content-Type"] == "application/octet-stream"
    assert answer.headers["Content-Disposition"].startswith("attachment; filename*=UTF-8''")
    assert answer.headers["X-Content-Type-Options"] == "nosniff"


def test_files_are_listed_by_age_page_by_page(client: TestClient) -> None:
    ids = [upload(client) for _ in range(5)]
    api = sdk(client)

    assert [file.id for file in api.files.list()] == ids[::-1]
    assert [file.id for file in api.files.list(order="asc", limit=2)] == ids
    page = api.files.list(limit=2)
    assert ([file.id for file in page.data], page.has_more) == (ids[:-3:-1], True)
    assert [file.id for file in api.files.list(after=ids[1], purpose="batch").data] == ids[:1]
    assert api.files.list(purpose="fine-tune").data == []


@pytest.mark.parametrize(
    ("query", "param"),
    [
        ("limit=0", "limit"),
        ("limit=10001", "limit"),
        ("order=up", "order"),
        ("after=x", "after"),
        ("purpose=%00", "purpose"),
    ],
)
def test_a_wrong_page_is_refused_by_name(client: TestClient, query: str, param: str) -> None:
    answer = client.get(f"/v1/files?{query}")

    assert answer.status_code == 400
    assert check_shape(answer)["param"] == param


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"purpose": "assistants"}, "purpose"),
        ({}, "purpose"),
        ({"purpose": "batch", "colour": "red"}, "colour"),
        ({"purpose": "batch", "expires_after[anchor]": "created_at"}, "expires_after[seconds]"),
        ({"purpose": "batch", "expires_after[seconds]": "7200"}, "expires_after[anchor]"),
        ({"purpose": "batch", "expires_after[seconds]": "60"}, "expires_after[seconds]"),
        ({"purpose": "batch", "expires_after[seconds]": "x"}, "expires_after[seconds]"),
        ({"purpose": "batch", "expires_after[anchor]": "now"}, "expires_after[anchor]"),
    ],
)
def test_a_field_that_is_wrong_or_not_supported_is_refused_by_name(
    client: TestClient, blobs: LocalBlobs, fields: dict[str, str], param: str
) -> None:
    answer = raw(client, LINES, **fields)

    assert answer.status_code == 400
    assert check_shape(answer)["param"] == param
    assert client.get("/v1/files").json()["data"] == []
    assert list(blobs.idle(-60)) == []


def test_a_file_expires_when_its_upload_says_so(client: TestClient) -> None:
    made = sdk(client).files.create(
        file=("in.jsonl", LINES),
        purpose="batch",
        expires_after={"anchor": "created_at", "seconds": 3_600},
    )

    assert made.expires_at is not None
    assert abs(made.expires_at - made.created_at - 3_600) <= 1


def test_too_large_too_many_and_no_form_are_refused(make_client: MakeClient) -> None:
    client = make_client(max_file_bytes=100, file_limits=FileLimits(files=1, bytes=1_000))

    large = raw(client, b"x" * 101, purpose="batch")
    announced = raw(client, b"x" * 100_000, purpose="batch")
    no_form = client.post("/v1/files", json={"file": "x"})
    assert raw(client, b"x" * 100, purpose="batch").status_code == 200
    one_more = raw(client, b"", purpose="batch")

    assert [one.status_code for one in (large, announced, no_form, one_more)] == [
        413,
        413,
        415,
        429,
    ]
    for answer in (large, announced, no_form, one_more):
        check_shape(answer)
    assert (
        make_client(file_limits=FileLimits(files=9, bytes=120))
        .post("/v1/files", files={"file": ("f", b"x" * 30)}, data={"purpose": "batch"})
        .status_code
        == 429
    )


def test_without_keys_another_sites_page_sends_no_files(make_client: MakeClient) -> None:
    client = make_client(own_names_only=True)
    client.base_url = "http://localhost"

    def status(origin: str) -> int:
        form: dict[str, Any] = {"files": {"file": ("f", b"x")}, "data": {"purpose": "batch"}}
        return client.post("/v1/files", headers={"Origin": origin}, **form).status_code

    assert status("http://localhost:3000") == 200
    assert [status(one) for one in ("https://evil.example", "null", "http://[")] == [403] * 3


def test_where_keys_are_asked_for_any_sites_page_may_send_files(
    make_client: MakeClient, database: Database
) -> None:
    client = make_client(own_names_only=True, key_secret=SECRET)
    headers = {**bearer(add(database)), "Host": "app.example", "Origin": "https://app.example"}

    form: dict[str, Any] = {"files": {"file": ("f", b"x")}, "data": {"purpose": "batch"}}
    assert client.post("/v1/files", headers=headers, **form).status_code == 200


def test_an_unknown_id_and_another_owners_are_the_same_404(client: TestClient) -> None:
    mine = upload(client)
    client.app.dependency_overrides[get_owner] = lambda: "somebody else"  # type: ignore[attr-defined]

    answers = {
        file_id: [
            client.get(f"/v1/files/{file_id}"),
            client.get(f"/v1/files/{file_id}/content"),
            client.delete(f"/v1/files/{file_id}"),
        ]
        for file_id in (mine, UNKNOWN, "..", "x" * 500, "file_%00")
    }

    for found in answers.values():
        assert {answer.status_code for answer in found} == {404}
        assert [check_shape(one)["code"] for one in found] == ["not_found"] * 3
    assert client.get("/v1/files").json()["data"] == []
    assert client.get(f"/v1/files?after={new_id('file')}").json()["data"] == []


def test_a_content_that_is_lost_is_a_404_and_no_5xx(client: TestClient, blobs: LocalBlobs) -> None:
    file_id = upload(client)
    blobs.delete(file_id)

    answer = client.get(f"/v1/files/{file_id}/content")

    assert answer.status_code == 404
    check_shape(answer)
