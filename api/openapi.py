"""What `/docs` says of bodies that are parsed by hand, and of errors. Changes no behaviour."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from fastapi import FastAPI
from pydantic.json_schema import models_json_schema

from api.errors import MEDIA_TYPE
from penstock.schemas.batch import BatchRequest
from penstock.schemas.chat import ChatRequest
from penstock.schemas.errors import ErrorBody

REF: Final = "#/components/schemas/{model}"

DESCRIPTIONS: Final = {
    400: "The body is not valid JSON.",
    401: "No key, or an unknown one.",
    404: "Unknown, or another owner's.",
    409: "Not possible in the present state.",
    413: "The body is larger than the limit.",
    415: "Not application/json.",
    422: "A field is wrong, or the Idempotency-Key was used with another body.",
    429: "You have as much in the queue as you may have: see Retry-After.",
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


def errors(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """`responses=` of a route that may answer with these."""
    schema = {"schema": {"$ref": REF.format(model="ErrorBody")}}
    return {
        status: {"description": DESCRIPTIONS[status], "content": {MEDIA_TYPE: schema}}
        for status in sorted({401, 503, *statuses})
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
                    operation["responses"]["422"] = errors(422)[422]
        return document

    app.openapi = openapi  # type: ignore[method-assign]  # FastAPI's documented way
