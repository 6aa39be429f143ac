"""Every route of the application, tried with another owner's ids and with every kind of bad key.

Routes are found, not listed: one with an id that is not in `IDS`, or that asks for no scope, fails
here by its name.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import httpx2
import pytest
from fastapi.dependencies.models import Dependant
from fastapi.routing import APIRoute, APIWebSocketRoute, iter_route_contexts
from starlette.routing import BaseRoute
from starlette.testclient import TestClient
from starlette.websockets import WebSocketDisconnect

from api.scopes import Scoped
from storage.database import Database
from tests.contract.conftest import MakeClient
from tests.contract.support import check_shape, settle
from tests.support.jobs import MODEL
from tests.support.keys import SECRET, SIGNER, add, bearer, revoke
from tests.support.waiting import until

#: Asks for no key: what watches the service, and its documentation.
PUBLIC = {"/healthz", "/readyz", "/metrics"}
DOCUMENTATION = {"/openapi.json", "/docs", "/docs/oauth2-redirect"}


@dataclass(frozen=True)
class World:
    """Two owners; the first has something of everything."""

    client: TestClient
    database: Database
    ann: dict[str, str]
    bob: dict[str, str]

    def post(self, path: str, body: dict[str, Any]) -> Any:
        answer = self.client.post(path, json=body, headers=self.ann)
        assert answer.is_success, (path, answer.text)
        return answer.json()


def job(world: World) -> str:
    posted = world.post("/batch-generate", {"messages": ["secret of ann"]})
    return str(posted["request_id"])


def finished_job(world: World) -> str:
    request_id = job(world)
    settle(world.database)
    return request_id


def chat(world: World) -> str:
    """Ended, so that its stream ends as well."""
    said = {"message": "secret of ann", "wait": False}
    request_id = str(world.post("/chat", said)["request_id"])
    settle(world.database)
    return request_id


def conversation(world: World) -> str:
    said = {"message": "secret of ann", "wait": False}
    return str(world.post("/chat", said)["conversation_id"])


def file(world: World) -> str:
    line = (
        b'{"custom_id": "a", "method": "POST", "url": "/v1/completions", "body": {"prompt": "a"}}\n'
    )
    upload = {"file": ("secret of ann.jsonl", line)}
    asked = {"purpose": "batch"}
    posted = world.client.post("/v1/files", files=upload, data=asked, headers=world.ann)
    assert posted.is_success, posted.text
    return str(posted.json()["id"])


def openai_batch(world: World) -> str:
    asked = {
        "input_file_id": file(world),
        "endpoint": "/v1/completions",
        "completion_window": "24h",
        "metadata": {"note": "secret of ann"},
    }
    made = str(world.post("/v1/batches", asked)["id"])
    path = f"/v1/batches/{made}"  # its file is read by and by
    read = partial(world.client.get, path, headers=world.ann)
    until("the file is read", lambda: read().json()["status"] != "validating")
    return made


def endpoint(world: World) -> str:
    asked = {"url": "https://receiver.example/secret-of-ann", "event_types": ["batch.completed"]}
    return str(world.post("/webhooks/endpoints", asked)["id"])


def delivery(world: World) -> str:
    endpoint(world)
    finished_job(world)
    listed = world.client.get("/webhooks/deliveries", headers=world.ann).json()["data"]
    return str(listed[0]["id"])


def cache_key(world: World) -> str:
    world.post("/cache/set", {"key": "of-ann", "value": "secret of ann"})
    return "of-ann"


def model(world: World) -> str:
    return MODEL


#: What the first owner has under a path parameter: by the parameter's name, or by the whole path
#: where that asks for something special.
IDS: dict[str, Callable[[World], str]] = {
    "/batch-generate/{request_id}/retry-failed": finished_job,
    "/batch-result/{request_id}/events": finished_job,
    "/chat/stream/{request_id}": chat,
    "{request_id}": job,
    "{conversation_id:path}": conversation,
    "{file_id}": file,
    "{batch_id}": openai_batch,
    "{endpoint_id}": endpoint,
    "{delivery_id}": delivery,
    "{key:path}": cache_key,
    "{model:path}": model,
}
#: Where a name says nothing of whose it is: everybody has keys of their own, and the same models.
NAMES = {"/cache/get/{key:path}", "/cache/delete/{key:path}", "/v1/models/{model:path}"}


@pytest.fixture
def world(make_client: MakeClient, database: Database) -> Iterator[World]:
    client = make_client(key_secret=SECRET, key_ttl=0.0)
    admin = ("admin",)
    yield World(
        client,
        database,
        bearer(add(database, "ann", scopes=admin)),
        bearer(add(database, "bob", scopes=admin)),
    )


def routes(world: World, kind: type) -> list[Any]:
    app: Any = world.client.app
    return [found for found in iter_route_contexts(app.routes) if isinstance(found.route, kind)]


def guarded(world: World) -> list[tuple[str, Any]]:
    """(method, route) of all but the public ones."""
    found = routes(world, APIRoute)
    assert len(found) > 8
    return [
        (method, route)
        for route in found
        if route.path not in PUBLIC
        for method in sorted(route.methods)
    ]


def fill(world: World, path: str) -> str:
    """The path with the first owner's ids in it."""
    filled = path
    for parameter in re.findall(r"\{[^}]*\}", path):
        make = IDS.get(path) or IDS.get(parameter)
        assert make, f"{path}: say in IDS what an owner has under {parameter}"
        filled = filled.replace(parameter, make(world))
    return filled


def ask(world: World, method: str, path: str, who: dict[str, str]) -> httpx2.Response:
    """Posts come with a body that says nothing, for those who want one."""
    body: dict[str, Any] = {"json": {}} if method in {"POST", "PUT", "PATCH"} else {}
    return world.client.request(method, path, headers=who, **body)


def scopes_of(dependant: Dependant) -> Iterator[tuple[str, ...]]:
    for inner in dependant.dependencies:
        if isinstance(inner.call, Scoped):
            yield tuple(inner.call.scopes)
        yield from scopes_of(inner)


def test_every_route_says_which_scope_it_asks_for(world: World) -> None:
    silent = {
        f"{method} {route.path}"
        for method, route in guarded(world)
        if not any(True for _ in scopes_of(route.dependant))
    }

    assert not silent, f"give these `dependencies=[needs(…)]` of api/scopes.py: {sorted(silent)}"


def test_another_owners_ids_are_unknown_on_every_route(world: World) -> None:
    tried = 0
    for method, route in guarded(world):
        if "{" not in route.path:
            continue
        path = fill(world, route.path)
        before = world.client.get("/batch-generate", headers=world.ann).json()
        answer = ask(world, method, path, world.bob)
        if route.path not in NAMES:
            assert answer.status_code in (401, 403, 404), (method, path, answer.text)
            check_shape(answer)
        assert "secret of ann" not in answer.text
        assert world.client.get("/batch-generate", headers=world.ann).json() == before
        mine = ask(world, method, path, world.ann)
        assert mine.status_code not in (401, 403, 404), (method, path, mine.text)
        tried += 1
    assert tried >= 3


def test_what_is_listed_is_ones_own(world: World) -> None:
    ids = {make(world) for make in IDS.values()} - {MODEL}
    said = {"message": "secret of ann", "conversation_id": "of-ann", "wait": False}
    world.post("/chat", said)
    ids |= {"of-ann", "secret of ann"}
    for method, route in guarded(world):
        if method == "GET" and "{" not in route.path:
            text = world.client.get(route.path, headers=world.bob).text
            assert not [each for each in ids if each in text], route.path


def test_a_conversation_is_ones_own_by_whatever_name(world: World, database: Database) -> None:
    said = {"message": "secret of ann", "conversation_id": "same", "wait": False}
    world.post("/chat", said)
    settle(database)

    said["message"] = "and what did ann say?"
    assert world.client.post("/chat", json=said, headers=world.bob).status_code == 202

    with database.begin() as conn:
        prompts = conn.exec_driver_sql(
            "SELECT messages::text FROM requests JOIN batches ON id = batch_id WHERE owner = 'bob'"
        ).scalars()
        assert [each for each in prompts if "secret" in each] == []


def test_one_idempotency_key_of_two_owners_is_two_jobs(world: World) -> None:
    key = {"Idempotency-Key": "same"}
    made = {
        world.client.post("/batch-generate", json={"messages": ["a"]}, headers=who | key).text
        for who in (world.ann, world.bob)
    }

    assert len(made) == 2


def bad_keys(database: Database) -> dict[str, dict[str, str]]:
    """Headers, by what is wrong with them."""
    revoked = add(database, "ann", scopes=("admin",))
    revoke(database, revoked)
    good = add(database, "ann", scopes=("admin",))
    return {
        "none": {},
        "revoked": bearer(revoked),
        "expired": bearer(add(database, "ann", scopes=("admin",), expires_in=-1.0)),
        "unstored": bearer(SIGNER.make().text),
        "cut": bearer(good[:-1]),
        "other secret": bearer(good[:-16] + "0" * 16),
        "empty": bearer(""),
        "not bearer": {"Authorization": f"Basic {good}"},
        "in the query": {},
        "id alone": bearer(good[:20]),
        "long": bearer("x" * 10_000),
    }


def test_every_route_refuses_every_bad_key(world: World, database: Database) -> None:
    for method, route in guarded(world):
        path = fill(world, route.path)
        for what, headers in bad_keys(database).items():
            answer = world.client.request(method, path, headers=headers)
            assert answer.status_code == 401, (method, path, what)
            assert check_shape(answer)["code"] == "invalid_api_key"
            assert answer.headers["WWW-Authenticate"] == "Bearer"


def test_every_websocket_refuses_every_bad_key(world: World, database: Database) -> None:
    for route in routes(world, APIWebSocketRoute):
        path = re.sub(r"\{[^}]*\}", "x", route.path)
        for what, headers in bad_keys(database).items():
            with (
                pytest.raises(WebSocketDisconnect),
                world.client.websocket_connect(path, headers=headers) as socket,
            ):
                socket.receive_text()
                pytest.fail(f"{route.path} lets in: {what}")


def test_there_is_no_route_of_another_kind(world: World) -> None:
    others = [
        found.path
        for found in routes(world, BaseRoute)
        if not isinstance(found.route, APIRoute | APIWebSocketRoute)
    ]

    assert set(others) == DOCUMENTATION


def test_every_route_with_a_scope_refuses_a_key_without_it(
    world: World, database: Database
) -> None:
    nothing = bearer(add(database, "ann", scopes=()))
    for method, route in guarded(world):
        wanted = {scopes for scopes in scopes_of(route.dependant) if scopes}
        answer = world.client.request(method, fill(world, route.path), headers=nothing)
        assert (answer.status_code == 403) == bool(wanted), (method, route.path)
