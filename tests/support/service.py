"""A small service that speaks the jobs' part of the contract over real HTTP, and fails on demand.

For tests of clients: what it accepts, in which order and how often is written down.
"""

from __future__ import annotations

import json
import socket
import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

import uvicorn
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route


@dataclass
class StoredJob:
    id: str
    key: str | None
    body: bytes
    messages: list[Any]
    fields: dict[str, Any]
    status: str


@dataclass(frozen=True)
class Seen:
    method: str
    path: str
    headers: Mapping[str, str]
    query: Mapping[str, str]


def problem(
    status: int, code: str, message: str, param: str | None = None, **headers: str
) -> Response:
    """An error as the API answers it."""
    body = {
        "type": f"urn:penstock:error:{code}",
        "title": "Problem",
        "status": status,
        "detail": message,
        "instance": "urn:penstock:request:1",
        "error": {"message": message, "type": "error", "param": param, "code": code},
    }
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    return JSONResponse(body, status, names, "application/problem+json")


def tokens_of(text: Any) -> list[int]:
    """One token for each word."""
    return [len(word) for word in str(text).split()]


def echo(message: Any) -> str | None:
    """The answer to a prompt; a prompt with `fail` in it has none."""
    return None if "fail" in str(message) else f"echo: {message}"


@dataclass
class Service:
    """Jobs in memory. `faults` are answered first, one a request, whatever was asked."""

    answer: Callable[[Any], str | None] = echo
    detail: Callable[[Any], dict[str, object]] | None = None
    tokens: Callable[[Any], tuple[int, int]] | None = None  #: in and out; None: not told
    reused: Callable[[Any], bool] | None = None
    hold: bool = False  #: jobs go on until `finish`
    faults: deque[Response] = field(default_factory=deque)
    streams: deque[str] = field(
        default_factory=deque
    )  #: of events, as sent; then there is no route
    jobs: dict[str, StoredJob] = field(default_factory=dict)
    seen: list[Seen] = field(default_factory=list)
    url: str = ""

    def finish(self, status: str = "completed") -> None:
        for job in self.jobs.values():
            job.status = status if job.status == "processing" else job.status

    def app(self) -> Starlette:
        return Starlette(
            routes=[
                Route("/healthz", self._health),
                Route("/batch-generate", self._post, methods=["POST"]),
                Route("/batch-generate/{id}/{what}", self._ask, methods=["POST"]),
                Route("/batch-result/{id}", self._result),
                Route("/batch-result/{id}/events", self._stream),
                Route("/chat", self._chat, methods=["POST"]),
                Route("/chat/stream", self._stream, methods=["POST"]),
                Route("/conversations", self._conversations),
                Route("/conversations/{id:path}", self._conversation, methods=["GET", "DELETE"]),
            ]
        )

    def _note(self, request: Request) -> Response | None:
        self.seen.append(
            Seen(
                request.method,
                request.url.path,
                dict(request.headers),
                dict(request.query_params),
            )
        )
        return self.faults.popleft() if self.faults else None

    async def _health(self, request: Request) -> Response:
        return self._note(request) or JSONResponse({"status": "ok"})

    async def _post(self, request: Request) -> Response:
        try:
            body = await request.body()
        except ClientDisconnect:
            return Response(status_code=400)
        if fault := self._note(request):
            return fault
        key = request.headers.get("Idempotency-Key")
        for job in self.jobs.values():
            if key is not None and job.key == key:
                if job.body != body:
                    return problem(422, "idempotency_mismatch", "Another body.")
                return _accepted(job, **{"Idempotent-Replayed": "true"})
        fields = json.loads(body)
        messages = fields.pop("messages")
        status = "processing" if self.hold else "completed"
        job = StoredJob(f"batch_{len(self.jobs) + 1}", key, body, messages, fields, status)
        self.jobs[job.id] = job
        return _accepted(job)

    async def _result(self, request: Request) -> Response:
        if fault := self._note(request):
            return fault
        job = self.jobs.get(request.path_params["id"])
        if job is None:
            return problem(404, "not_found", "There is no job under this id.")
        return JSONResponse(self._state(job, request.query_params))

    async def _ask(self, request: Request) -> Response:
        if fault := self._note(request):
            return fault
        job = self.jobs[request.path_params["id"]]
        if request.path_params["what"] == "cancel" and job.status == "processing":
            job.status = "cancelled"
        return JSONResponse(self._state(job, {}))

    async def _chat(self, request: Request) -> Response:
        body = await request.json()
        if fault := self._note(request):
            return fault
        return JSONResponse(
            {
                "response": self.answer(body["message"]),
                "conversation_id": body.get("conversation_id") or "conv_1",
                "request_id": "chat_1",
                "tokens_generated": 2,
                "from_cache": False,
            }
        )

    async def _stream(self, request: Request) -> Response:
        await request.body()
        if fault := self._note(request):
            return fault
        if not self.streams:
            return problem(404, "not_found", "Not Found.")
        return Response(self.streams.popleft(), media_type="text/event-stream")

    async def _conversations(self, request: Request) -> Response:
        return self._note(request) or JSONResponse({"data": [{"conversation_id": "a/b"}]})

    async def _conversation(self, request: Request) -> Response:
        if fault := self._note(request):
            return fault
        said = [{"role": "user", "content": "hello", "timestamp": 1.5}]
        return JSONResponse({"conversation_id": "a/b", "messages": said})

    def _state(self, job: StoredJob, query: Mapping[str, str]) -> dict[str, object]:
        done = 0 if job.status == "processing" else len(job.messages)
        counts = job.fields.get("mode") == "count"
        answers = ["" if counts else self.answer(message) for message in job.messages]
        failed = answers.count(None) if done else 0
        state: dict[str, object] = {
            "request_id": job.id,
            "status": job.status,
            "progress": {"total": len(answers), "completed": done - failed, "failed": failed},
            "usage": {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5},
            "processing_time": 1.5 if done else None,
        }
        if "limit" in query:
            offset = int(query.get("offset", 0))
            page = answers[offset : offset + int(query["limit"])]
            state |= {"offset": offset, "responses": page if done else [None] * len(page)}
            asked = job.messages[offset : offset + len(page)]
            state |= _counted(job, asked) if counts else self._told(asked)
            state["errors"] = [
                {"index": offset + index, "code": "engine_error", "message": "It failed."}
                for index, text in enumerate(page)
                if text is None and done
            ]
        return state

    def _told(self, asked: list[Any]) -> dict[str, object]:
        """What a page tells of each prompt beside its answer."""
        told = {"details": self.detail, "tokens": self.tokens, "from_cache": self.reused}
        return {name: [of(one) for one in asked] for name, of in told.items() if of is not None}


def _counted(job: StoredJob, asked: list[Any]) -> dict[str, object]:
    """What a page tells of prompts whose tokens are counted."""
    shown: dict[str, object] = {"tokens": [(len(tokens_of(one)), 0) for one in asked]}
    if choices := job.fields.get("choices"):
        ids = {"choices": {choice: tokens_of(choice) for choice in choices}}
        shown["details"] = [ids] * len(asked)
    return shown


def _accepted(job: StoredJob, **headers: str) -> Response:
    body = {"request_id": job.id, "status": "queued", "total": len(job.messages)}
    return JSONResponse(body, 202, headers)


def listen() -> socket.socket:
    """A socket on a free port that accepts connections, before anyone serves them."""
    listener = socket.create_server(("127.0.0.1", 0))
    listener.settimeout(30)
    return listener


class Served(Protocol):
    url: str

    def app(self) -> Starlette: ...


AnyServed = TypeVar("AnyServed", bound=Served)


@contextmanager
def serving(service: AnyServed, listener: socket.socket) -> Iterator[AnyServed]:
    """Serve on `listener` until the block ends."""
    config = uvicorn.Config(service.app(), lifespan="off", log_config=None, access_log=False)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    service.url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    thread.start()
    try:
        yield service
    finally:
        server.should_exit = True
        thread.join(timeout=30)
