"""Webhooks over HTTP: endpoints as OpenAI's client makes them, callbacks of jobs, the log."""

from __future__ import annotations

from typing import Any

from openai import OpenAI
from openai.types.webhooks import WebhookEndpoint
from starlette.testclient import TestClient

from storage import deliveries
from storage.database import Database
from tests.contract.conftest import MakeClient
from tests.contract.support import check_shape, post, settle
from tests.support.webhooks import add_endpoint, claim, end_job, log
from workers.addresses import Policy, parse_networks

URL = "https://hooks.example/in?token=1"
CALLBACK = "https://job.example:8443/done"
ENDPOINTS = "/webhooks/endpoints"
DELIVERIES = "/webhooks/deliveries"
UNKNOWN = ("whe_" + 32 * "0", "whe_1", "callback", "whd_" + 32 * "0")
#: One of each trick; the rest are the unit tests' matter.
REFUSED = (
    "http://127.0.0.1/",
    "http://[::1]/",
    "http://169.254.169.254/",
    "http://0x7f.1/",
    "http://[::ffff:10.0.0.1]/",
    "http://100.100.100.200/",
    "http://[64:ff9b::7f00:1]/",
    "http://[2002:7f00:1::]/",
    "http://localhost:8080/",
    "http://example.com:22/",
    "http://user@example.com/",
    "gopher://example.com/",
    "",
    "a" * 3_000,
)
WRONG: list[tuple[dict[str, object], str]] = [
    ({}, "url"),
    ({"url": 1}, "url"),
    ({"url": URL, "event_types": []}, "event_types"),
    ({"url": URL, "event_types": ["batch.begun"]}, "event_types.0"),
    ({"url": URL, "name": "x" * 257}, "name"),
    ({"url": URL, "name": "nul \0"}, "name"),
    ({"url": URL, "enabled": "yes"}, "enabled"),
    ({"url": URL, "secret": "mine"}, "secret"),
]


def _create(client: TestClient, **fields: object) -> dict[str, Any]:
    answer = client.post(ENDPOINTS, json={"url": URL, **fields})
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


def test_a_secret_is_told_once_when_it_is_made_and_once_when_it_is_rotated(
    client: TestClient,
) -> None:
    made = _create(client, name="mine")
    assert made["signing_secret"].startswith("whsec_")
    one = f"{ENDPOINTS}/{made['id']}"

    rotated = client.post(f"{one}/rotate-secret")
    shown = [
        client.get(one),
        client.get(ENDPOINTS),
        client.post(one, json={"name": "other", "enabled": False}),
        client.get(f"{ENDPOINTS}/callbacks"),
        client.get("/v1/webhook_endpoints"),
    ]

    secrets = {made["signing_secret"], rotated.json()["signing_secret"]}
    assert len(secrets) == 2
    for answer in shown:
        assert answer.status_code == 200, answer.text
        assert "whsec_" not in answer.text and "signing_secret_hint" in answer.text
        assert not any(secret[6:] in answer.text for secret in secrets)
    changed = shown[2].json()
    assert (changed["name"], changed["enabled"], changed["url"]) == ("other", False, URL)
    assert rotated.json()["signing_secret_hint"] == changed["signing_secret_hint"]


def test_openais_client_manages_the_same_endpoints(client: TestClient) -> None:
    openai = OpenAI(api_key="-", base_url="http://localhost/v1", http_client=client)

    made = openai.webhooks.create(
        url=URL, name="from openai", event_types=["batch.completed", "batch.failed"]
    )
    other = openai.webhooks.create(url=URL, name="", event_types=["batch.expired"])
    listed = list(openai.webhooks.list(limit=1))  # by pages of one
    changed = openai.webhooks.update(made.id, event_types=["batch.cancelled"])
    rotated = openai.webhooks.rotate_secret(made.id, keep_old_secret_active_for_24_hours=True)
    again = openai.webhooks.rotate_secret(made.id)
    gone = openai.webhooks.delete(other.id)

    assert [endpoint.id for endpoint in listed] == [other.id, made.id]
    assert changed.event_types == ["batch.cancelled"]
    assert openai.webhooks.retrieve(made.id) == WebhookEndpoint.model_validate(
        client.get(f"{ENDPOINTS}/{made.id}").json()
    )
    assert len({made.signing_secret, rotated.signing_secret, again.signing_secret}) == 3
    assert gone.deleted
    assert [endpoint.id for endpoint in openai.webhooks.list()] == [made.id]


def test_a_url_that_nothing_is_sent_to_is_422_by_name(client: TestClient) -> None:
    for url in REFUSED:
        job = client.post("/batch-generate", json={"messages": ["a"], "callback_url": url})
        endpoint = client.post(ENDPOINTS, json={"url": url})

        assert (job.status_code, check_shape(job)["param"]) == (422, "callback_url"), url
        assert (endpoint.status_code, check_shape(endpoint)["param"]) == (422, "url"), url


def test_networks_of_ones_own_may_be_named_in_the_settings(make_client: MakeClient) -> None:
    client = make_client(receivers=Policy(parse_networks(["127.0.0.0/8"])))

    post(client, "a", callback_url="http://127.0.0.1:8080/")
    assert _create(client, url="http://localhost:8080/")["url"] == "http://localhost:8080/"


def test_a_wrong_field_of_an_endpoint_is_422_by_name(client: TestClient) -> None:
    for fields, param in WRONG:
        answer = client.post(ENDPOINTS, json=fields)

        assert (answer.status_code, check_shape(answer)["param"]) == (422, param), fields


def test_what_is_unknown_or_anothers_is_404(client: TestClient, database: Database) -> None:
    others, _ = add_endpoint(database, owner="another")
    end_job(database, owner="another")
    (delivery,) = log(database, "another")

    for endpoint_id in (*UNKNOWN, others.id):
        one = f"{ENDPOINTS}/{endpoint_id}"
        for answer in (
            client.get(one),
            client.post(one, json={"enabled": False}),
            client.delete(one),
            client.post(f"{one}/rotate-secret"),
        ):
            assert answer.status_code == 404, answer.request.url
            check_shape(answer)
    for delivery_id in (*UNKNOWN, delivery.id):
        for answer in (
            client.get(f"{DELIVERIES}/{delivery_id}"),
            client.post(f"{DELIVERIES}/{delivery_id}/redeliver"),
        ):
            assert answer.status_code == 404
    assert client.get(DELIVERIES).json()["data"] == []
    assert client.get(DELIVERIES, params={"endpoint_id": others.id}).json()["data"] == []
    assert client.delete(f"{ENDPOINTS}/callbacks").status_code == 409


def test_the_log_tells_how_each_delivery_stands(client: TestClient, database: Database) -> None:
    endpoint = _create(client)
    job = post(client, "a", callback_url=CALLBACK)
    other = post(client, "b")
    settle(database)
    (failing, *_), _ = claim(database)
    attempt = deliveries.Attempt(False, 500, "The receiver answered 500.", delay=60)
    with database.begin() as conn:
        deliveries.settle(conn, failing, attempt)

    def ask(**query: object) -> list[dict[str, Any]]:
        answer = client.get(DELIVERIES, params=query)  # type: ignore[arg-type]
        assert answer.status_code == 200, answer.text
        return list(answer.json()["data"])

    everything = ask()
    assert len(everything) == 3
    assert [d["request_id"] for d in ask(endpoint_id="callbacks")] == [job]
    assert [d["request_id"] for d in ask(endpoint_id=endpoint["id"])] == [other, job]
    assert {d["endpoint_id"] for d in ask(request_id=job)} == {"callbacks", endpoint["id"]}
    pages = [ask(limit=2), ask(limit=2, after=everything[1]["id"])]
    assert pages[0] + pages[1] == everything
    (tried,) = [d for d in everything if d["status_code"]]
    assert tried["id"] == failing.id and tried["status"] == "pending"
    assert (tried["attempts"], tried["last_error"]) == (1, "The receiver answered 500.")
    assert tried["next_attempt_at"] > tried["created_at"]

    sent = client.post(f"{DELIVERIES}/{failing.id}/redeliver")

    assert (sent.status_code, sent.json()["id"]) == (202, failing.id)
    assert sent.json()["next_attempt_at"] < tried["next_attempt_at"]
    assert client.get(f"{DELIVERIES}/{failing.id}").json() == sent.json()
    metrics = client.get("/metrics").text
    assert 'penstock_webhook_attempts_total{outcome="retried"} 1.0' in metrics
    for name, value in (("after", "x"), ("endpoint_id", "x"), ("request_id", "x"), ("limit", 0)):
        wrong = client.get(DELIVERIES, params={name: value})
        assert (wrong.status_code, check_shape(wrong)["param"]) == (422, name)
