"""Keys, request ids, unknown routes and documentation."""

from __future__ import annotations

import re

import pytest
from starlette.testclient import TestClient

from api.dependencies import hash_key
from tests.contract.conftest import MakeClient
from tests.contract.support import check_shape
from tests.support import jobs

GUARDED = [
    ("POST", "/batch-generate"),
    ("GET", "/batch-generate"),
    ("GET", "/batch-result/batch_00000000000000000000000000000000"),
    ("POST", "/batch-generate/batch_00000000000000000000000000000000/cancel"),
    ("POST", "/batch-generate/batch_00000000000000000000000000000000/retry-failed"),
    ("POST", "/chat"),
    ("POST", "/v1/files"),
    ("GET", "/v1/files"),
    ("GET", "/v1/files/file_00000000000000000000000000000000"),
    ("DELETE", "/v1/files/file_00000000000000000000000000000000"),
    ("GET", "/v1/files/file_00000000000000000000000000000000/content"),
    ("POST", "/v1/batches"),
    ("GET", "/v1/batches"),
    ("GET", "/v1/batches/batch_00000000000000000000000000000000"),
    ("POST", "/v1/batches/batch_00000000000000000000000000000000/cancel"),
    ("GET", "/conversations"),
    ("GET", "/conversations/a/b"),
    ("DELETE", "/conversations/a/b"),
    ("POST", "/api/v1/chat"),
    ("POST", "/api/v1/chat/stream"),
    ("GET", "/api/v1/health"),
    ("GET", "/api/v1/model/info"),
    ("POST", "/api/v1/model/load"),
    ("POST", "/v1/chat/completions"),
    ("POST", "/v1/completions"),
    ("GET", "/v1/models"),
    ("GET", "/v1/models/some/name"),
    ("POST", "/chat/stream"),
    ("GET", "/chat/stream/chat_00000000000000000000000000000000"),
    ("GET", "/batch-result/batch_00000000000000000000000000000000/events"),
    ("GET", "/health"),
    ("GET", "/stats"),
]


def test_with_keys_every_route_but_the_probes_asks_for_one(make_client: MakeClient) -> None:
    client = make_client(key_hashes=(hash_key("first"), hash_key("sécond")))
    bad = [{}, {"Authorization": "Bearer wrong"}, {"Authorization": "Basic Zmlyc3Q="}]

    for method, path in GUARDED:
        for headers in bad:
            answer = client.request(method, path, headers=headers)
            assert answer.status_code == 401, (method, path)
            assert check_shape(answer)["code"] == "invalid_api_key"
            assert answer.headers["WWW-Authenticate"] == "Bearer"
    for path in ("/healthz", "/metrics", "/readyz"):
        assert client.get(path).status_code != 401


def test_any_of_the_keys_is_accepted(make_client: MakeClient) -> None:
    client = make_client(key_hashes=(hash_key("first"), hash_key("second")))

    for key in ("first", "second"):
        headers = {"Authorization": f"Bearer {key}"}
        assert client.get("/batch-generate", headers=headers).status_code == 200


def test_a_key_of_any_bytes_is_no_5xx(make_client: MakeClient) -> None:
    client = make_client(key_hashes=(hash_key("first"),))

    answer = client.get("/stats", headers={b"Authorization": b"Bearer \xff\xfe\x80"})

    assert answer.status_code == 401


def test_without_keys_only_names_of_this_machine_are_answered(make_client: MakeClient) -> None:
    client = make_client(own_names_only=True)

    for host in ("localhost", "localhost:8000", "127.0.0.1:1", "[::1]:8000", "[::1]"):
        assert client.get("/healthz", headers={"Host": host}).status_code == 200, host
    for host in ("rebound.example", "rebound.example:8000", "10.0.0.1", "localhost.example", ""):
        answer = client.get("/healthz", headers={"Host": host})
        assert answer.status_code == 400, host
        assert check_shape(answer)["param"] == "Host"


def test_without_keys_no_page_of_another_machine_changes_anything(make_client: MakeClient) -> None:
    client = make_client(own_names_only=True)
    client.base_url = "http://localhost"
    changing = [
        (method, re.sub(r"\{\w+\}", "callbacks", path))
        for path, methods in client.get("/openapi.json").json()["paths"].items()
        for method in methods
        if method not in ("get", "head", "options")
    ]

    assert len(changing) > 15
    for method, path in changing:
        for origin in ("https://evil.example", "null", "http://[", "http://localhost.example"):
            answer = client.request(method, path, headers={"Origin": origin})
            assert answer.status_code == 403, (method, path, origin)
            assert check_shape(answer)["code"] == "unknown_origin"
    page = {"Origin": "http://localhost:3000"}
    assert client.post("/chat", json={"message": "a", "wait": False}, headers=page).is_success
    assert client.get("/stats", headers={"Origin": "https://evil.example"}).status_code == 200


def test_a_sane_request_id_is_kept_and_any_other_replaced(client: TestClient) -> None:
    kept = client.get("/healthz", headers={"X-Request-ID": "trace-1.a:b"})
    assert kept.headers["X-Request-ID"] == "trace-1.a:b"
    for bad in ("", "x" * 129, "a b", "<script>"):
        given = client.get("/healthz", headers={"X-Request-ID": bad}).headers["X-Request-ID"]
        assert re.fullmatch(r"req_[0-9a-f]{32}", given)


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/nowhere", 404),
        ("GET", "/", 404),
        ("GET", "/%00", 404),
        ("GET", "/batch-generate/", 404),
        ("DELETE", "/batch-generate", 405),
        ("PUT", "/chat", 405),
    ],
)
def test_unknown_routes_and_methods_have_the_one_shape(
    client: TestClient, method: str, path: str, status: int
) -> None:
    answer = client.request(method, path)

    assert answer.status_code == status
    check_shape(answer)


def test_an_error_names_its_request(client: TestClient) -> None:
    answer = client.get("/nowhere", headers={"X-Request-ID": "mine"})

    assert answer.json()["instance"] == "urn:penstock:request:mine"


def test_every_route_is_documented_with_its_body_and_errors(client: TestClient) -> None:
    document = client.get("/openapi.json").json()

    schemas = document["components"]["schemas"]
    body = document["paths"]["/batch-generate"]["post"]["requestBody"]
    assert body["content"]["application/json"]["schema"]["$ref"].endswith("/BatchRequest")
    assert body["content"]["application/json"]["examples"]
    assert "messages" in schemas["BatchRequest"]["required"]
    assert {"ErrorBody", "ErrorDetail", "ChatMessage", "ChatRequest"} <= schemas.keys()
    for reference in re.findall(r'"#/components/schemas/(\w+)"', str(document).replace("'", '"')):
        assert reference in schemas
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            assert operation["tags"], (method, path)
            if not {"files", "batches"}.isdisjoint(operation["tags"]):
                assert "422" not in operation["responses"], (method, path)
            for status, answer in operation["responses"].items():
                if int(status) >= 400 and path != "/readyz":
                    assert "application/problem+json" in answer["content"], (method, path)
    assert client.get("/docs").status_code == 200


def test_routes_with_a_body_document_a_late_one_and_those_with_a_key_a_conflict(
    client: TestClient,
) -> None:
    document = client.get("/openapi.json").json()

    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            told = operation["responses"].keys()
            names = {one["name"].lower() for one in operation.get("parameters", ())}
            assert "413" not in told or "408" in told, (method, path)
            assert "idempotency-key" not in names or "409" in told, (method, path)


def test_the_examples_of_the_documentation_are_accepted(client: TestClient) -> None:
    document = client.get("/openapi.json").json()
    body = document["paths"]["/batch-generate"]["post"]["requestBody"]

    for example in body["content"]["application/json"]["examples"].values():
        value = {**example["value"], "model": jobs.MODEL}
        assert client.post("/batch-generate", json=value).status_code == 202
