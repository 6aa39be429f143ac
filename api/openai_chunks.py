"""The chunks of a streamed completion, as server-sent events. Knows nothing of who waits for them.

Log-probabilities come with the last chunk of the answer, for all of its tokens.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from api.errors import Problem, error_detail
from api.openai_bodies import render_usage
from api.openai_choices import chat_logprobs, scored, text_logprobs
from api.openai_parameters import CHAT
from storage.records import Params, ResultRow

DONE: Final = b"data: [DONE]\n\n"


@dataclass(frozen=True, slots=True)
class Chunks:
    """Writes one answer's. `with_usage`: a chunk with the tokens ends it."""

    endpoint: str
    call_id: str
    created: int
    model: str
    asked: Params
    with_usage: bool

    def opening(self) -> Iterator[bytes]:
        """Whose turn it is."""
        if self.endpoint == CHAT:
            yield self._choice({"delta": {"role": "assistant", "content": "", "refusal": None}})

    def piece(self, text: str) -> bytes:
        """More of the text."""
        return self._choice(
            {"delta": {"content": text}} if self.endpoint == CHAT else {"text": text}
        )

    def ending(self, row: ResultRow, detail: Mapping[str, Any] | None) -> Iterator[bytes]:
        """Why it ended, and what there is beside the text."""
        said: dict[str, object] = (
            {"delta": {}, "logprobs": chat_logprobs(detail, self.asked)}
            if self.endpoint == CHAT
            else {"text": "", "logprobs": text_logprobs(detail, self.asked)}
        )
        yield self._choice({**said, **scored(detail)}, row.finish_reason)
        if self.with_usage:
            yield self._event({"choices": [], "usage": render_usage(row)})
        yield DONE

    def _choice(self, said: dict[str, object], finish: str | None = None) -> bytes:
        usage = {"usage": None} if self.with_usage else {}
        choice = {"index": 0, "logprobs": None, **said, "finish_reason": finish}
        return self._event({"choices": [choice], **usage})

    def _event(self, members: dict[str, object]) -> bytes:
        kind = "chat.completion.chunk" if self.endpoint == CHAT else "text_completion"
        head = {"id": self.call_id, "object": kind, "created": self.created, "model": self.model}
        return _event({**head, **members})


def error_event(problem: Problem) -> bytes:
    """What went wrong after the first chunk; the stream ends with it."""
    return _event({"error": error_detail(problem).model_dump()})


def _event(body: dict[str, object]) -> bytes:
    # ASCII, since some clients take more characters than the standard's for line ends.
    return b"data: " + json.dumps(body).encode() + b"\n\n"
