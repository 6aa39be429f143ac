"""Server-sent events as a client reads them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Event:
    id: str | None
    name: str | None
    data: dict[str, Any]

    @property
    def type(self) -> str:
        return str(self.data["type"])


def read_events(lines: Iterable[str]) -> Iterator[Event]:
    """The events of a stream's lines; pings are left out."""
    fields: dict[str, str] = {}
    for line in lines:
        if line and not line.startswith(":"):
            name, _, value = line.partition(":")
            fields[name] = value.removeprefix(" ")
        elif not line and fields:
            yield Event(fields.get("id"), fields.get("event"), json.loads(fields["data"]))
            fields = {}


def said(events: Iterable[Event]) -> str:
    """The text of an answer, without what was thought."""
    return "".join(event.data["content"] for event in events if event.type == "chunk")
