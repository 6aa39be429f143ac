"""Jobs over HTTP: accepted, listed, cancelled, retried."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor

from starlette.testclient import TestClient

from penstock.errors import PromptError
from storage import leases
from storage.database import Database
from tests.contract.conftest import MakeClient
from tests.contract.support import post, settle
from tests.support import jobs
from workers.params import sampling_params


def test_a_job_is_accepted_with_its_id_and_where_to_look(client: TestClient) -> None:
    answer = client.post("/batch-generate", json={"messages": ["a", "b"], "max_tokens": 5})

    assert answer.status_code == 202
    body = answer.json()
    assert body == {"request_id": body["request_id"], "status": "queued", "total": 2}
    assert answer.headers["Location"] == f"/batch-result/{body['request_id']}"
    assert client.get(answer.headers["Location"]).json()["progress"]["total"] == 2


def test_sampling_parameters_and_messages_reach_the_worker(
    client: TestClient, database: Database
) -> None:
    turns = [{"role": "user", "content": "one"}, {"role": "assistant", "content": "two"}]
    post(client, turns, "plain", temperature=0, stop="END", seed=7, system="Be brief.")

    (shard,) = jobs.claim(database)

    assert shard.system == "Be brief."
    assert [r.messages for r in shard.requests] == [
        (("user", "one"), ("assistant", "two")),
        (("user", "plain"),),
    ]
    assert shard.params == {
        "mode": "generate",
        "length_normalized": False,
        "max_tokens": 200,
        "temperature": 0,
        "top_p": 0.95,
        "top_k": 0,
        "min_p": 0,
        "repetition_penalty": 1,
        "presence_penalty": 0,
        "frequency_penalty": 0,
        "seed": 7,
        "stop": ["END"],
        "n": 1,
        "logprobs": False,
    }


def test_a_schema_reaches_the_worker_as_it_was_given(
    client: TestClient, database: Database
) -> None:
    properties = {"reason": {"type": "string"}, "ü": {"enum": [None, 1.5, "\u2028"]}, "a": {}}
    schema = {"type": "object", "properties": properties}
    wanted = {"type": "json_schema", "json_schema": {"name": "x", "strict": True, "schema": schema}}
    post(client, "a", response_format=wanted, logprobs=True, top_logprobs=3)

    (shard,) = jobs.claim(database)

    constraint = sampling_params(shard.params).constraint
    assert constraint is not None
    assert constraint.value == json.dumps(schema)  # in the order of its properties
    assert (shard.params["logprobs"], shard.params["top_logprobs"]) == (True, 3)


def test_bad_prompts_fail_alone_with_their_reason(client: TestClient, database: Database) -> None:
    bad = [
        ("", PromptError.EMPTY),
        (" \n\t", PromptError.EMPTY),
        ([{"role": "system", "content": "x"}, {"role": "user", "content": " "}], PromptError.EMPTY),
        ("nul \0 inside", PromptError.INVALID_TEXT),
        ("x" * 10_001, PromptError.TOO_LARGE),
        ("é" * 5_001, PromptError.TOO_LARGE),
        (17, PromptError.INVALID_MESSAGE),
        (None, PromptError.INVALID_MESSAGE),
        ([], PromptError.INVALID_MESSAGE),
        ({"role": "user", "content": "x"}, PromptError.INVALID_MESSAGE),
        ([{"role": "robot", "content": "x"}], PromptError.INVALID_MESSAGE),
        ([{"role": ["user"], "content": "x"}], PromptError.INVALID_MESSAGE),
        ([{"role": "user", "content": None}], PromptError.INVALID_MESSAGE),
        ([{"role": "user", "content": "x", "name": "y"}], PromptError.INVALID_MESSAGE),
        (["user"], PromptError.INVALID_MESSAGE),
    ]
    job = post(client, "first", *(prompt for prompt, _ in bad), "last")
    settle(database)

    result = client.get(f"/batch-result/{job}").json()

    assert result["status"] == "completed"
    assert result["responses"][0] == "answer 0"
    assert result["responses"][-1] == f"answer {len(bad) + 1}"
    assert set(result["responses"][1:-1]) == {None}
    assert [(e["index"], e["code"]) for e in result["errors"]] == [
        (index, code) for index, (_, code) in enumerate(bad, start=1)
    ]
    assert all(e["message"] for e in result["errors"])


def test_a_prompt_with_half_a_surrogate_pair_fails_alone(
    client: TestClient, database: Database
) -> None:
    body = rb'{"messages": ["good", "bad \ud800", "raw ' + b"\xed\xa0\x80" + rb'", "\ud83d\ude00"]}'
    answer = client.post(
        "/batch-generate", content=body, headers={"Content-Type": "application/json"}
    )
    settle(database)

    result = client.get(answer.headers["Location"]).json()

    assert result["progress"] == {"total": 4, "completed": 2, "failed": 2}
    assert [e["code"] for e in result["errors"]] == [PromptError.INVALID_TEXT] * 2


def test_a_job_without_one_good_prompt_ends_as_failed(
    client: TestClient, database: Database
) -> None:
    job = post(client, "", "")
    settle(database)

    result = client.get(f"/batch-result/{job}").json()

    assert (result["status"], result["responses"]) == ("failed", [None, None])


def test_jobs_are_listed_newest_first_without_chats(client: TestClient) -> None:
    first = post(client, "a", metadata={"name": "one"})
    second = post(client, "b", "c")
    client.post("/chat", json={"message": "hello", "wait": False})

    listed = client.get("/batch-generate").json()["data"]

    assert [job["request_id"] for job in listed] == [second, first]
    assert listed[1]["metadata"] == {"name": "one"}
    assert (listed[0]["status"], listed[0]["progress"]["total"]) == ("queued", 2)
    assert len(client.get("/batch-generate?limit=1").json()["data"]) == 1


def test_cancelling_keeps_what_is_done(client: TestClient, database: Database) -> None:
    job = post(client, "a", "b", "c")
    (shard,) = jobs.claim(database)
    jobs.admit(database, shard, [0])
    jobs.commit(database, shard, [0])

    cancelled = client.post(f"/batch-generate/{job}/cancel")
    settle(database)
    result = client.get(f"/batch-result/{job}").json()

    assert (cancelled.status_code, cancelled.json()["status"]) == (200, "processing")
    assert result["status"] == "cancelled"
    assert result["responses"] == ["answer 0", None, None]
    assert {e["code"] for e in result["errors"]} == {PromptError.CANCELLED}
    assert client.post(f"/batch-generate/{job}/cancel").json()["status"] == "cancelled"


def test_retrying_runs_the_failed_prompts_again(client: TestClient, database: Database) -> None:
    job = post(client, "a", "b", "")
    (shard,) = jobs.claim(database)
    jobs.admit(database, shard)
    with database.begin() as conn:
        leases.commit(conn, shard.id, shard.epoch, [jobs.answer(0), jobs.failure(1)], jobs.LEASE)
    settle(database)
    assert client.get(f"/batch-result/{job}").json()["responses"] == ["answer 0", None, None]

    retried = client.post(f"/batch-generate/{job}/retry-failed")
    settle(database)
    result = client.get(f"/batch-result/{job}").json()

    assert (retried.status_code, retried.json()["status"]) == (200, "processing")
    assert result["responses"] == ["answer 0", "answer 1", None]


def test_an_unfinished_job_cannot_be_retried(client: TestClient) -> None:
    job = post(client, "a")

    answer = client.post(f"/batch-generate/{job}/retry-failed")

    assert (answer.status_code, answer.json()["error"]["code"]) == (409, "conflict")


def test_a_repeated_post_with_one_key_is_one_job(client: TestClient) -> None:
    body, headers = {"messages": ["a"]}, {"Idempotency-Key": "key-1"}

    first = client.post("/batch-generate", json=body, headers=headers)
    second = client.post("/batch-generate", json=body, headers=headers)
    other = client.post("/batch-generate", json={"messages": ["b"]}, headers=headers)

    assert first.json() == second.json()
    assert "Idempotent-Replayed" not in first.headers
    assert second.headers["Idempotent-Replayed"] == "true"
    assert (other.status_code, other.json()["error"]["code"]) == (422, "idempotency_mismatch")


def test_fifty_parallel_posts_with_one_key_are_one_job(client: TestClient) -> None:
    def submit(_: int) -> tuple[int, str]:
        answer = client.post(
            "/batch-generate", json={"messages": ["a"] * 100}, headers={"Idempotency-Key": "k"}
        )
        return answer.status_code, answer.json()["request_id"]

    with ThreadPoolExecutor(50) as pool:
        answers = set(pool.map(submit, range(50)))

    assert len(answers) == 1
    assert {status for status, _ in answers} == {202}
    assert len(client.get("/batch-generate").json()["data"]) == 1


def test_a_bad_idempotency_key_is_refused_by_name(client: TestClient) -> None:
    for key in (b"", b"x" * 256, b"tab\there", b"\xe9"):
        headers = {b"Idempotency-Key": key}

        answer = client.post("/batch-generate", json={"messages": ["a"]}, headers=headers)

        assert answer.status_code == 422, key
        assert answer.json()["error"]["param"] == "Idempotency-Key"


def test_only_served_models_are_accepted(
    client: TestClient, database: Database, make_client: MakeClient, registered: None
) -> None:
    elsewhere = make_client(model="other")

    assert elsewhere.post("/batch-generate", json={"messages": ["a"]}).status_code == 202
    answer = elsewhere.post("/batch-generate", json={"messages": ["a"], "model": jobs.MODEL})
    unknown = elsewhere.post("/batch-generate", json={"messages": ["a"], "model": "../etc"})

    assert answer.status_code == 202  # a live worker serves it
    assert (unknown.status_code, unknown.json()["error"]["code"]) == (404, "model_not_found")
    assert "fake, other" in unknown.json()["detail"]
