"""`/v1/models`: what requests may name."""

from __future__ import annotations

import time
from typing import Final

from fastapi import APIRouter
from sqlalchemy import Connection

from api import accepting, openapi
from api.config import ApiConfig
from api.dependencies import Owner, PartsDep
from api.scopes import needs
from penstock.schemas.openai_answers import Model, ModelList
from storage import fleet

router = APIRouter(tags=["openai"], dependencies=[needs()])

STARTED: Final = int(time.time())


@router.get("/v1/models", responses=openapi.errors())
async def list_models(parts: PartsDep, owner: Owner) -> ModelList:
    """The configured models, and those that live workers serve."""
    names = await parts.offload.read(lambda conn: _served(conn, parts.config))
    return ModelList(data=[Model(id=name, created=STARTED) for name in names])


@router.get("/v1/models/{model:path}", responses=openapi.errors(404))
async def get_model(parts: PartsDep, owner: Owner, model: str) -> Model:
    """One of them; names may have slashes."""
    config = parts.config
    name = await parts.offload.read(lambda conn: accepting.resolve_model(conn, model, config))
    return Model(id=name, created=STARTED)


def _served(conn: Connection, config: ApiConfig) -> list[str]:
    names = config.models | {worker.model for worker in fleet.workers(conn)}
    return [config.model, *sorted(names - {config.model})]
