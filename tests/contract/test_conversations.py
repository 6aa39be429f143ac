"""`/conversations`: listed in pages, read, forgotten; and turns of one that come at once."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from urllib.parse import quote

import httpx2
import pytest
from starlette.testclient import TestClient

from storage import leases
from storage.database import Database
from storage.states import Lane
from tests.contract.conftest import MakeClient
from tests.contract.support import check_shape, settle, until
from tests.support import jobs
from tests.support.talk import say

CURSORS = ["x", "MjAyNg", "eA==", "%00", "ÿ", "MjAyNi0wMS0wMVQwMDowMDowMCB4"]
ODD = ["a/b", "a%2Fb/c", "ü ?&#", "x" * 128]


def _say(client: TestClient, conversation: str, message: str = "hello", **fields: object) -> str:
    body = {"message": message, "conversation_id": conversation, "wait": False, **fields}
    answer = client.post("/chat", json=body)
    assert answer.status_code == 202, answer.text
    return str(answer.json()["request_id"])


def test_a_conversation_is_read_as_messages_with_their_times(
    client: TestClient, database: Database
) -> None:
    _say(client, "talk", "one")
    settle(database)
    _say(client, "talk", "two")

    body = client.get("/conversations/talk").json()

    assert body["conversation_id"] == "talk"
    assert [(m["role"], m["content"]) for m in body["messages"]] == [
        ("user", "one"),
        ("assistant", "answer 0"),
        ("user", "two"),
    ]
    times = [message["timestamp"] for message in body["messages"]]
    assert times == sorted(times) and times[0] > 1.7e9


def test_any_id_that_a_chat_may_have_can_be_read_and_deleted(live: str) -> None:
    """Over a real connection: there a path is decoded once."""
    with httpx2.Client(base_url=live) as client:
        chat = {"message": "hi", "user_id": "d/e", "session_id": "f", "wait": False}
        names = [*ODD, client.post("/chat", json=chat).json()["conversation_id"]]
        for name in ODD:
            body = {"message": "hi", "conversation_id": name, "wait": False}
            assert client.post("/chat", json=body).status_code == 202
        for name in names:
            path = f"/conversations/{quote(name, safe='/')}"

            assert client.get(path).json()["conversation_id"] == name
            assert client.delete(path).json() == {"conversation_id": name, "deleted": True}
            assert client.get(path).status_code == 404


def test_pages_of_conversations_go_from_the_last_used_to_the_first(client: TestClient) -> None:
    for name in "abcde":
        _say(client, name)
    _say(client, "a")

    names, after = [], None
    for _ in range(3):
        query = f"&after={after}" if after else ""
        page = client.get(f"/conversations?limit=2{query}").json()
        names += [one["conversation_id"] for one in page["data"]]
        after = page["next"]

    assert names == ["a", "e", "d", "c", "b"]
    assert after is None


def test_pages_of_a_conversation_go_back_to_its_beginning(client: TestClient) -> None:
    for number in range(5):
        _say(client, "talk", str(number))

    pages, before = [], ""
    while before is not None:
        query = f"&before={before}" if before else ""
        page = client.get(f"/conversations/talk?limit=2{query}").json()
        pages.append([message["content"] for message in page["messages"]])
        before = page["earlier"]

    assert pages == [["3", "4"], ["1", "2"], ["0"]]


@pytest.mark.parametrize(
    "cursor", ["x", "MjAyNg", "eA==", "%00", "ÿ", "MjAyNi0wMS0wMVQwMDowMDowMCB4"]
)
@pytest.mark.parametrize(("path", "param"), [("", "after"), ("/talk", "before")])
def test_a_cursor_that_is_none_is_refused_by_name(
    client: TestClient, path: str, param: str, cursor: str
) -> None:
    _say(client, "talk")

    answer = client.get(f"/conversations{path}?{param}={cursor}")

    assert answer.status_code == 422
    assert check_shape(answer)["param"] == param


@pytest.mark.parametrize("path", ["unknown", "somebodys", "", "%00", "%ff", "a/%ed%a0%80"])
@pytest.mark.parametrize("method", ["GET", "DELETE"])
def test_what_is_unknown_or_another_owners_is_404(
    client: TestClient, database: Database, method: str, path: str
) -> None:
    say(database, "somebodys", "secret", owner="somebody")

    answer = client.request(method, f"/conversations/{path}")

    assert answer.status_code == 404
    assert check_shape(answer)["code"] == "not_found"
    assert client.get("/conversations").json() == {"data": [], "next": None}


def test_deleting_hides_what_was_answered_and_what_was_not(
    client: TestClient, database: Database
) -> None:
    answered = _say(client, "talk")
    settle(database)
    waiting = _say(client, "talk")

    client.delete("/conversations/talk")
    settle(database)

    assert client.get(f"/batch-result/{answered}").status_code == 404
    assert client.get(f"/batch-result/{waiting}").status_code == 404


def test_two_at_once_are_answered_in_order_by_two_servers(
    make_client: MakeClient, database: Database
) -> None:
    first, second = make_client(), make_client()
    body = {"conversation_id": "talk"}
    with ThreadPoolExecutor(2) as pool:
        one = pool.submit(first.post, "/chat", json={**body, "message": "one"})
        until(lambda: first.get("/conversations").json()["data"] or None)
        two = pool.submit(second.post, "/chat", json={**body, "message": "two"})
        until(lambda: len(first.get("/conversations/talk").json()["messages"]) == 2 or None)
        prompts = []
        for number in range(2):
            (shard,) = jobs.claim(database, lane=Lane.EXPRESS, limit=2)
            prompts.append([*shard.requests[0].history, *shard.requests[0].messages])
            jobs.admit(database, shard)
            outcome = replace(jobs.answer(0), text=f"answer to {number}")
            with database.begin() as conn:
                leases.commit(conn, shard.id, shard.epoch, [outcome], jobs.LEASE)
            jobs.end(database)
        answers = [asked.result(timeout=20).json()["response"] for asked in (one, two)]

    assert prompts == [
        [("user", "one")],
        [("user", "one"), ("assistant", "answer to 0"), ("user", "two")],
    ]
    assert answers == ["answer to 0", "answer to 1"]


def _answer_dropping(database: Database, turns: int) -> None:
    (shard,) = until(lambda: jobs.claim(database, lane=Lane.EXPRESS) or None)
    jobs.admit(database, shard)
    outcome = replace(jobs.answer(0), detail=json.dumps({"dropped_turns": turns}))
    with database.begin() as conn:
        leases.commit(conn, shard.id, shard.epoch, [outcome], jobs.LEASE)
    jobs.end(database)


def test_an_answer_says_how_many_turns_were_dropped(client: TestClient, database: Database) -> None:
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(client.post, "/chat", json={"message": "hello"})
        _answer_dropping(database, 3)
        answer = asked.result(timeout=20).json()
    later = _say(client, "talk")
    _answer_dropping(database, 4)

    assert answer["dropped_turns"] == 3 and "detail" not in answer
    assert client.get(f"/batch-result/{later}").json()["details"] == [{"dropped_turns": 4}]
