"""What a wake-up looks like on the wire, and what is made of it: a lane's name, all else is new.

A message is written by whoever reaches the broker, so nothing of it is handed on as it came. Knows
JSON values; knows no broker and no Celery.
"""

from __future__ import annotations

import base64
import json
from typing import Any, Final, TypeGuard

from uuid_utils import uuid7

TASK: Final = "penstock.generate"
LANES: Final = ("bulk", "express")
LARGEST_BODY: Final = 1_000  #: characters as they come; ours have about 150
LONGEST_ID: Final = 100
_KINDS: Final = {"body": str, "content-type": str, "content-encoding": str}
_PARTS: Final = {"headers": dict, "properties": dict}


def wake_up(message: object, queue: str) -> dict[str, Any] | None:
    """The wake-up that a message of this queue asks for, written anew; None where it is none."""
    if not is_envelope(message) or len(message["body"]) > LARGEST_BODY:
        return None
    headers, kwargs = message["headers"], _arguments(message)
    id = headers.get("id")
    if headers.get("task") != TASK or not isinstance(id, str) or len(id) > LONGEST_ID:
        return None
    if kwargs is None:
        return None
    return {
        "body": json.dumps([[], kwargs, {}]),
        "content-type": "application/json",
        "content-encoding": "utf-8",
        "headers": {
            "task": TASK,
            "id": id,
            "root_id": id,
            "lang": "py",
            "argsrepr": "()",
            "kwargsrepr": repr(kwargs),
        },
        "properties": {
            "delivery_tag": str(uuid7()),
            "delivery_info": {"exchange": "", "routing_key": queue},
        },
    }


def is_envelope(message: object) -> TypeGuard[dict[str, Any]]:
    """Whether it is what kombu wraps around JSON, by its parts' types."""
    if not isinstance(message, dict):
        return False
    if not all(isinstance(message.get(key), kind) for key, kind in (_KINDS | _PARTS).items()):
        return False
    properties = message["properties"]
    return (
        message["content-type"] == "application/json"
        and message["content-encoding"] == "utf-8"
        and properties.get("body_encoding") in (None, "base64")
        and isinstance(properties.get("delivery_tag"), str)
        and isinstance(properties.get("delivery_info"), dict)
    )


def _arguments(message: dict[str, Any]) -> dict[str, Any] | None:
    """`lane`, where the body holds it and nothing besides."""
    body = message["body"]
    try:
        if message["properties"].get("body_encoding") == "base64":
            body = base64.b64decode(body, validate=True)
        args, kwargs, _ = json.loads(body)
        lane = kwargs.pop("lane")
    except (ValueError, TypeError, AttributeError, LookupError, RecursionError):
        return None
    if args or kwargs or lane not in LANES:
        return None
    return {"lane": lane}
