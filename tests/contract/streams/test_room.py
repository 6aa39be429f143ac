"""Streams where there is no room for them: refused before anything is stored."""

from __future__ import annotations

import json
from dataclasses import replace

import httpx2
import pytest
from sqlalchemy import text
from websockets.sync.client import connect

from api.app import create_app
from storage.database import Database
from tests.contract.conftest import CONFIG, MakeClient
from tests.contract.support import check_shape, serving
from tests.support.waiting import until
from workers.queues import WakeUps

SAID = {"messages": [{"role": "user", "content": "one"}], "stream": True}


def _stored(database: Database) -> list[dict[str, object]]:
    with database.begin() as conn:
        return list(conn.scalars(text("SELECT params FROM batches ORDER BY id")))


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/chat/stream", {"message": "one"}),
        ("/api/v1/chat/stream", {"message": "one"}),
        ("/v1/chat/completions", SAID),
        ("/v1/completions", {"prompt": "one", "stream": True}),
    ],
)
def test_a_stream_that_nobody_could_wait_for_is_not_stored(
    make_client: MakeClient, database: Database, path: str, body: dict[str, object]
) -> None:
    answer = make_client(max_waiting=0).post(path, json=body)

    assert answer.status_code == 503
    assert check_shape(answer)["code"] == "overloaded"
    assert _stored(database) == []


def test_a_question_that_nobody_could_wait_for_is_not_stored(
    database: Database, wake_ups: WakeUps
) -> None:
    app = create_app(replace(CONFIG, max_waiting=0), database, wake_ups)
    with serving(app) as url, connect(f"{url.replace('http', 'ws')}/ws/chat/a/b") as socket:
        socket.send("one")
        assert json.loads(socket.recv(timeout=20))["code"] == "overloaded"

    assert _stored(database) == []


def test_questions_that_wait_are_bytes_in_flight(database: Database, wake_ups: WakeUps) -> None:
    """Without a worker, so that the first one is being answered all the time."""
    app = create_app(replace(CONFIG, max_bytes_in_flight=3_000), database, wake_ups)
    question = "x" * 1_400
    with serving(app) as url, httpx2.Client(base_url=url, timeout=20) as client:

        def post() -> int:
            return client.post("/chat", json={"message": question, "wait": False}).status_code

        with connect(f"{url.replace('http', 'ws')}/ws/chat/a/b") as socket:
            socket.send(question)
            assert json.loads(socket.recv(timeout=20))["type"] == "start"
            for _ in range(3):
                socket.send(question)
            assert json.loads(socket.recv(timeout=20))["code"] == "overloaded"
            assert post() == 503

        until("they are given back", lambda: post() == 202)


@pytest.mark.parametrize("path", ["/chat/stream", "/api/v1/chat/stream"])
def test_what_leaves_something_to_chance_gets_a_seed(
    make_client: MakeClient, database: Database, path: str
) -> None:
    client = make_client(chat_timeout=0.1)
    client.post(path, json={"message": "one"})

    (params,) = _stored(database)
    assert isinstance(params["seed"], int)
    assert (params["stream"], params["use_cache"]) == (True, False)
