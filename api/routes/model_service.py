"""`/api/v1`: the routes of the model-service family."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from dataclasses import replace
from typing import Any

from fastapi import APIRouter, Request
from fastapi.routing import APIRoute
from starlette.responses import JSONResponse, Response

from api import accepting, chats, intake, model_service, openapi
from api.attending import attend
from api.body import read_body
from api.dependencies import IdempotencyKey, Owner, Parts, PartsDep
from api.errors import problem_of, request_id_of, respond
from api.json_body import parse_object
from api.model_service import ModelChat
from api.scopes import needs
from penstock.errors import PenstockError
from penstock.keys import Scope
from penstock.schemas.model_service import (
    LoadAnswer,
    LoadRequest,
    ModelChatAnswer,
    ModelChatRequest,
    ModelDescription,
    ModelHealth,
)
from storage import fleet

Handler = Callable[[Request], Coroutine[Any, Any, Response]]


class _Told(APIRoute):
    """Its errors have `success` false beside the common members, wherever they were raised."""

    def get_route_handler(self) -> Handler:
        handle = super().get_route_handler()

        async def told(request: Request) -> Response:
            try:
                return await handle(request)
            except PenstockError as error:
                problem = problem_of(error)
                extra = {**problem.extra, "success": False, "response": None}
                return respond(replace(problem, extra=extra), request_id_of(request))

        return told


router = APIRouter(prefix="/api/v1", tags=["model service"])
answering = APIRouter(route_class=_Told)

#: Of a body that names a model.
MOST_LOAD_BYTES = 10_000


@answering.post(
    "/chat",
    response_model=ModelChatAnswer,
    responses=openapi.errors(400, 404, 409, 413, 415, 422, 429),
    openapi_extra=openapi.body("ModelChatRequest", openapi.MODEL_CHAT_EXAMPLES),
    dependencies=[needs(Scope.CHAT)],
)
async def chat(request: Request, parts: PartsDep, owner: Owner, key: IdempotencyKey) -> Response:
    """Answer a message, given what was said before it. Nothing is kept for a next one.

    An error has `success` false beside the common members.
    """
    stored = await take_chat(request, parts, owner, key)
    answer = await attend(
        request,
        parts,
        stored.batch,
        chats.answer(parts, stored.batch),
        cancel_on_leave=key is None,
    )
    shown = ModelChatAnswer(
        response=answer.response,
        request_id=answer.request_id,
        dropped_turns=answer.dropped_turns,
    )
    return JSONResponse(shown.model_dump(), 200, accepting.headers_of(stored))


router.include_router(answering)


async def take_chat(
    request: Request, parts: Parts, owner: str, key: str | None, *, stream: bool = False
) -> accepting.Stored:
    """Read the body within bounds, and store the prompt."""
    with parts.budget.hold() as hold:
        body = await read_body(request, hold, parts.config.max_chat_bytes)
        digest = accepting.body_hash(body) if key else None
        fields = await parts.offload.parse(
            lambda: intake.parse_fields(ModelChatRequest, parse_object(body))
        )
        post = ModelChat(owner, fields, key, digest, stream)
        return await model_service.store_chat(parts, post)


@router.get("/health", responses=openapi.errors(), dependencies=[needs()])
async def health(parts: PartsDep) -> ModelHealth:
    """Whether a model is loaded."""
    alive = await parts.offload.read(fleet.workers)
    newest = model_service.newest_serving(alive, parts.config)
    if newest is None:
        return ModelHealth(status="degraded", message="No model is loaded: no worker is alive.")
    return ModelHealth(status="ok", message=f"{newest.model} is loaded.")


@router.get("/model/info", responses=openapi.errors(), dependencies=[needs()])
async def model_info(parts: PartsDep) -> ModelDescription:
    """What is loaded, on what, and what else could be."""
    return await parts.offload.read(lambda conn: model_service.describe(conn, parts.config))


@router.post(
    "/model/load",
    response_model=LoadAnswer,
    responses={
        202: {"model": LoadAnswer, "description": "It was ordered; `/api/v1/model/info` tells."},
        **openapi.errors(400, 404, 409, 413, 415, 422),
    },
    openapi_extra=openapi.body("LoadRequest", openapi.LOAD_EXAMPLES),
    dependencies=[needs(Scope.ADMIN)],
)
async def load_model(request: Request, parts: PartsDep) -> JSONResponse:
    """Let a worker serve another configured model: it finishes what it runs, gives back the rest,
    and is started again with the other one. Jobs of a model that is not loaded wait for it."""
    with parts.budget.hold() as hold:
        body = await read_body(request, hold, MOST_LOAD_BYTES)
        asked = intake.validated(LoadRequest, parse_object(body))
    answer = await parts.offload.read(lambda conn: model_service.load(conn, asked))
    return JSONResponse(answer.model_dump(), 200 if answer.status == "loaded" else 202)
