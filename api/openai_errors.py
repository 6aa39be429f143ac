"""Penstock's errors as OpenAI's clients expect them: what is wrong with a request is a 400 that
names OpenAI's parameter, and no client is told to repeat what would only fail again.

Knows no route but by name.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, Final

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from starlette.requests import Request
from starlette.responses import Response

from api.errors import ChatFailed, Problem, invalid_fields, problem_of, request_id_of, respond
from api.openai_parameters import CHAT, TEXT
from penstock.errors import PenstockError

#: What a failed prompt came in.
PROMPTS: Final[Mapping[str, str]] = {CHAT: "messages", TEXT: "prompt"}
NO_RETRY: Final = {"X-Should-Retry": "false"}  # the official clients look at it


class Refused(Exception):
    """An error that has its answer."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem.code)
        self.problem = problem


def openai_problem(error: PenstockError, endpoint: str = CHAT) -> Problem:
    """What a client of `endpoint` gets to see; which one it is matters to a failed prompt alone."""
    problem = problem_of(error)
    if isinstance(error, ChatFailed):
        # The worker has tried again already, as often as that makes sense.
        problem = replace(
            problem,
            param=PROMPTS[endpoint] if problem.param else None,
            headers={**problem.headers, **NO_RETRY},
        )
    return replace(problem, status=400) if problem.status == 422 else problem


@contextmanager
def told(endpoint: str) -> Iterator[None]:
    """Answer what is raised inside as OpenAI would. Raises `Refused`."""
    try:
        yield
    except PenstockError as error:
        raise Refused(openai_problem(error, endpoint)) from error


class OpenaiRoute(APIRoute):
    """`told` around a whole route, its parameters and dependencies included."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()

        async def answer(request: Request) -> Response:
            try:
                return await handle(request)
            except PenstockError as error:
                raise Refused(openai_problem(error)) from error
            except RequestValidationError as error:
                raise Refused(openai_problem(invalid_fields(error.errors()))) from error

        return answer


def install(app: FastAPI) -> None:
    """Answer `Refused`."""

    async def on_refused(request: Request, error: Exception) -> Response:
        assert isinstance(error, Refused)  # noqa: S101  # registered for it alone
        return respond(error.problem, request_id_of(request))

    app.add_exception_handler(Refused, on_refused)
