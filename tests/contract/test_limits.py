"""A queue that is full: who is refused, with which answer, and what is stored of it."""

from __future__ import annotations

from penstock.settings import Settings
from storage.database import Database
from storage.quota import Amount, Limits
from storage.states import Lane
from tests.contract.conftest import MakeClient
from tests.contract.support import check_shape, post, settle

FEW = Amount(jobs=2, prompts=4, bytes=1_000)
MANY = Amount(jobs=100, prompts=1_000, bytes=1_000_000)
OWNERS = {Lane.BULK: Limits(FEW, MANY), Lane.EXPRESS: Limits(FEW, MANY)}
EVERYBODYS = {Lane.BULK: Limits(MANY, FEW), Lane.EXPRESS: Limits(MANY, FEW)}


def test_over_the_owners_limit_is_429_and_over_everybodys_503(make_client: MakeClient) -> None:
    client = make_client(limits=OWNERS)
    post(client, "a", "b", "c")

    own = client.post("/batch-generate", json={"messages": ["d", "e"]})
    all_together = make_client(limits=EVERYBODYS).post(
        "/batch-generate", json={"messages": ["d", "e"]}
    )

    assert own.status_code == 429
    error = check_shape(own)
    assert (error["type"], error["code"]) == ("rate_limit_error", "rate_limit_exceeded")
    assert "limit of 4 queued prompts" in str(error["message"])
    assert all_together.status_code == 503
    assert check_shape(all_together)["code"] == "overloaded"
    for answer in (own, all_together):
        assert int(answer.headers["Retry-After"]) > 0


def test_what_is_refused_is_not_there_and_fits_when_work_is_done(
    make_client: MakeClient, database: Database
) -> None:
    client = make_client(limits=OWNERS)
    post(client, "a", "b", "c", "d")
    assert client.post("/batch-generate", json={"messages": ["e"]}).status_code == 429
    assert len(client.get("/batch-generate").json()["data"]) == 1

    settle(database)

    assert client.post("/batch-generate", json={"messages": ["e"]}).status_code == 202


def test_a_full_bulk_queue_refuses_no_chat_and_full_chats_no_job(make_client: MakeClient) -> None:
    client = make_client(limits=OWNERS)
    post(client, "a", "b", "c", "d")
    say = {"message": "hello", "wait": False}

    chats = [client.post("/chat", json=say | {"conversation_id": "c"}) for _ in range(3)]

    assert [answer.status_code for answer in chats] == [202, 202, 429]
    assert "queued jobs" in str(check_shape(chats[-1])["message"])
    # Of a chat that was refused nothing is remembered.
    assert client.get("/stats").json()["queue_depth"] == 6


def test_a_job_that_could_never_fit_is_413(make_client: MakeClient) -> None:
    answer = make_client(limits=OWNERS).post("/batch-generate", json={"messages": ["x"] * 5})

    assert answer.status_code == 413
    assert "4 queued prompts" in str(check_shape(answer)["message"])


def test_a_repeated_post_finds_its_job_however_full_the_queue_is(make_client: MakeClient) -> None:
    client = make_client(limits=OWNERS)
    body, headers = {"messages": ["a"] * 4}, {"Idempotency-Key": "k"}
    first = client.post("/batch-generate", json=body, headers=headers)

    again = client.post("/batch-generate", json=body, headers=headers)

    assert (again.status_code, again.json()) == (202, first.json())
    assert again.headers["Idempotent-Replayed"] == "true"


def test_a_million_prompts_fit_by_default() -> None:
    queue = Settings().queue

    assert queue.prompts >= queue.owner_prompts >= 1_000_000
    assert queue.bytes >= queue.owner_bytes
    assert queue.jobs >= queue.owner_jobs
    assert queue.chats >= queue.owner_chats
