"""What `/docs` says of bodies that are parsed by hand, and of errors. Changes no behaviour."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from fastapi import FastAPI
from pydantic.json_schema import models_json_schema

from api.errors import MEDIA_TYPE
from penstock.schemas.batch import BatchRequest
from penstock.schemas.cache import CacheSet
from penstock.schemas.chat import ChatRequest
from penstock.schemas.errors import ErrorBody
from penstock.schemas.model_service import LoadRequest, ModelChatRequest
from penstock.schemas.openai import ChatCompletionRequest, TextCompletionRequest
from penstock.schemas.openai_batches import BatchCreate
from penstock.schemas.webhooks import EndpointChanges, NewEndpoint, RotateSecret

REF: Final = "#/components/schemas/{model}"

#: Of routes that answer as OpenAI does (`api.openai_errors`).
OPENAI_TAGS: Final = frozenset({"openai", "files", "batches"})

DESCRIPTIONS: Final = {
    400: "The body is not valid JSON; where OpenAI's clients ask, also: a field is wrong.",
    401: "No key, or an unknown one.",
    403: "The key lacks the scope.",
    404: "Unknown, or another owner's.",
    408: "The body did not arrive in time.",
    409: "Not possible in the present state.",
    413: "The body is larger than the limit.",
    415: "Not application/json.",
    422: "A field is wrong, or the Idempotency-Key was used with another body.",
    429: "Over a limit of the queue or of the minute: see Retry-After.",
    503: "Overloaded, or a store is away: see Retry-After.",
}

BATCH_EXAMPLES: Final = {
    "two prompts": {
        "value": {
            "messages": ["What does shutil.copytree do?", "Name a prime number."],
            "max_tokens": 64,
            "temperature": 0,
        }
    },
    "chat messages": {
        "value": {
            "messages": [[{"role": "user", "content": "Which topic is `json.dumps`?"}]],
            "system": "Answer with one word.",
            "priority": 5,
            "metadata": {"dataset": "stdlib"},
        }
    },
    "a probability for each label": {
        "value": {
            "messages": ["Is this review good or bad? It broke on the first day."],
            "choices": ["good", "bad"],
            "mode": "score",
        }
    },
    "a JSON document": {
        "value": {
            "messages": ["Name a city and how many people live there."],
            "response_format": {
                "type": "json_schema",
                "json_schema": {
                    "schema": {
                        "type": "object",
                        "properties": {"city": {"type": "string"}, "people": {"type": "integer"}},
                        "required": ["city", "people"],
                    }
                },
            },
        }
    },
}
CHAT_EXAMPLES: Final = {
    "a question": {"value": {"message": "What does shutil.copytree do?", "max_tokens": 64}},
    "without waiting": {"value": {"message": "Tell me a story.", "wait": False}},
}
CACHE_EXAMPLES: Final = {
    "a value": {"value": {"key": "last-topic", "value": {"topic": "json"}, "ttl": 600}}
}

MODEL_CHAT_EXAMPLES: Final = {
    "a second question": {
        "value": {
            "message": "And how do I copy a folder?",
            "history": [
                {"role": "user", "content": "How do I copy a file?"},
                {"role": "assistant", "content": "With shutil.copy."},
            ],
        }
    }
}
LOAD_EXAMPLES: Final = {"another model": {"value": {"model_name": "penstock-tiny"}}}


def errors(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """`responses=` of a route that may answer with these; one that reads a body (413) may wait for
    it in vain."""
    schema = {"schema": {"$ref": REF.format(model="ErrorBody")}}
    return {
        status: {"description": DESCRIPTIONS[status], "content": {MEDIA_TYPE: schema}}
        for status in sorted({401, 403, 429, 503, *statuses, *({408} if 413 in statuses else ())})
    }


def body(model: str, examples: dict[str, Any]) -> dict[str, Any]:
    """`openapi_extra=` of a route that parses its body by hand."""
    content = {"schema": {"$ref": REF.format(model=model)}, "examples": examples}
    return {"requestBody": {"required": True, "content": {"application/json": content}}}


def install(app: FastAPI) -> None:
    """Add the schemas that the routes refer to by name."""
    generate: Callable[[], dict[str, Any]] = app.openapi

    def openapi() -> dict[str, Any]:
        document = generate()
        if "ErrorBody" in document.get("components", {}).get("schemas", {}):
            return document  # FastAPI keeps the one it made first
        _, named = models_json_schema(
            [
                (BatchRequest, "validation"),
                (ChatRequest, "validation"),
                (BatchCreate, "validation"),
                (NewEndpoint, "validation"),
                (EndpointChanges, "validation"),
                (RotateSecret, "validation"),
                (CacheSet, "validation"),
                (LoadRequest, "validation"),
                (ModelChatRequest, "validation"),
                (ChatCompletionRequest, "validation"),
                (TextCompletionRequest, "validation"),
                (ErrorBody, "serialization"),
            ],
            ref_template=REF,
        )
        components = document.setdefault("components", {}).setdefault("schemas", {})
        components.update(named["$defs"])
        for name in ("HTTPValidationError", "ValidationError"):
            components.pop(name, None)
        for path in document["paths"].values():
            for operation in path.values():
                # FastAPI's own idea of a 422, which is never sent here.
                if "HTTPValidationError" in str(operation["responses"].get("422")):
                    del operation["responses"]["422"]
                    status = 422 if OPENAI_TAGS.isdisjoint(operation["tags"]) else 400
                    operation["responses"][str(status)] = errors(status)[status]
        return document

    app.openapi = openapi  # type: ignore[method-assign]  # FastAPI's documented way
