"""A chat that is told what was said before, and keeps nothing: one prompt in the express lane; and
orders to workers to load another configured model. Knows storage; knows no HTTP."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import Connection

from api import accepting, chats, intake
from api.config import ApiConfig
from api.dependencies import Parts
from api.errors import ChatFailed
from penstock.errors import (
    Conflict,
    InvalidRequest,
    ModelNotFound,
    PromptError,
    Unavailable,
)
from penstock.ids import new_id
from penstock.schemas.model_service import (
    LoadAnswer,
    LoadRequest,
    ModelChatRequest,
    ModelDescription,
)
from storage import fleet, orders
from storage.records import Batch, NewBatch, WorkerRecord
from storage.states import Lane
from workers.params import TRIM


@dataclass(frozen=True, slots=True)
class ModelChat:
    """A post of an owner. `stream`: its text is wanted as it comes. `digest` belongs to `key`."""

    owner: str
    fields: ModelChatRequest
    key: str | None = None
    digest: str | None = None
    stream: bool = False


async def store_chat(parts: Parts, post: ModelChat) -> accepting.Stored:
    """The prompt, in one transaction. Raises `ChatFailed` where it cannot run."""
    fields, config = post.fields, parts.config
    said = [{"role": one.role, "content": one.content} for one in fields.history]
    said.append({"role": "user", "content": fields.message})
    prompt = intake.to_prompt(said, config.max_prompt_bytes)
    if prompt.messages is None:
        raise ChatFailed(PromptError(prompt.error_code or ""), prompt.error_message or "")
    params: dict[str, object] = {**intake.sampling_params(fields), TRIM: True}

    def create(conn: Connection) -> Batch:
        batch = NewBatch(
            id=new_id("chat"),
            owner=post.owner,
            kind="chat",
            model=accepting.resolve_chat_model(conn, fields.model, config),
            lane=Lane.EXPRESS,
            params=chats.to_be_streamed(params) if post.stream else params,
            system=fields.system,
            idempotency_key=post.key,
            body_hash=post.digest,
        )
        return accepting.create_within_limits(conn, config.limits, batch, [prompt], 1)

    return await accepting.store(parts, create, post.digest)


def describe(conn: Connection, config: ApiConfig) -> ModelDescription:
    """What is loaded, by the worker that was heard of last."""
    newest = newest_serving(fleet.workers(conn), config)
    if newest is None:
        return ModelDescription(
            model_name=config.model,
            device="none",
            is_loaded=False,
            model_size=None,
            available=sorted(config.models),
        )
    device, size = newest.info.get("device"), newest.info.get("memory_bytes")
    return ModelDescription(
        model_name=newest.model,
        device=device if isinstance(device, str) else "unknown",
        is_loaded=True,
        model_size=size if isinstance(size, int) else None,
        available=_choices(newest) or [newest.model],
        load_error=orders.last_error(conn, newest.slot),
    )


def newest_serving(workers: list[WorkerRecord], config: ApiConfig) -> WorkerRecord | None:
    """Of the live workers of the configured model the one heard of last; where there is none, of
    those of the choices."""
    serving = [worker for worker in workers if worker.model == config.model]
    serving = serving or [worker for worker in workers if worker.model in config.choices]
    return min(serving, key=lambda worker: worker.age, default=None)


def load(conn: Connection, asked: LoadRequest) -> LoadAnswer:
    """Order a worker to serve another of its models. Raises where it cannot, with the reason."""
    worker = _choose(fleet.workers(conn), asked.slot)
    choices, wanted = _choices(worker), asked.model_name
    if not choices:
        raise Conflict(
            "No other models are configured: PENSTOCK_MODEL__CHOICES names them.",
            param="model_name",
        )
    if wanted not in choices:
        raise ModelNotFound(
            f"There is no such model; configured: {', '.join(choices)}.", param="model_name"
        )
    present = orders.wanted(conn, worker.slot) or worker.model
    if wanted == present == worker.model:
        return LoadAnswer(status="loaded", message=f"{worker.slot} serves {wanted}.")
    orders.place(conn, worker.slot, wanted)
    return LoadAnswer(
        status="loading",
        message=f"{worker.slot} finishes what it runs of {worker.model}, then loads {wanted}.",
    )


def _choose(workers: list[WorkerRecord], slot: str | None) -> WorkerRecord:
    if not workers:
        raise Unavailable("No worker is alive to load a model.")
    found = [worker for worker in workers if slot in (None, worker.slot)]
    if len(found) == 1:
        return found[0]
    names = ", ".join(worker.slot for worker in workers)
    problem = "There is no such worker" if slot else "There are several workers"
    raise InvalidRequest(f"{problem}: `slot` is one of {names}.", param="slot")


def _choices(worker: WorkerRecord) -> list[str]:
    """What a worker says that it may be ordered to serve."""
    value = worker.info.get("choices")
    return [str(name) for name in value] if isinstance(value, list) else []
