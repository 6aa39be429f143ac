"""Stored parameters of a job in the engine's terms. Torch-free, and knows no tokens: what the
stored ones may be, the wire schema says; keys that are unknown here belong to other parts."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

from models.runner import Constraint, SamplingParams
from storage.records import Params

#: Those that have the same name and form on both sides.
_SAME: Final = frozenset(SamplingParams.__dataclass_fields__) - {"stop", "logprobs", "constraint"}

_DEFAULTS: Final = SamplingParams()
#: Modes in which no text is drawn.
_UNDRAWN: Final = frozenset({"score", "count"})
#: True: of a chat that is too long for the model, the oldest turns may be left out.
TRIM: Final = "trim"


def sampling_params(params: Params) -> SamplingParams:
    """How the tokens of an answer are chosen."""
    same = {name: params[name] for name in _SAME if name in params}
    return SamplingParams(
        **same,  # type: ignore[arg-type]  # written by our own schema
        stop=tuple(_list(params.get("stop"))),
        logprobs=_number(params.get("top_logprobs"), 0) if params.get("logprobs") else None,
        constraint=constraint(params),
    )


def reusable(params: Params) -> bool:
    """May the answer to an equal prompt stand for this one? As asked; else where nothing is left to
    chance. To count is no work that could be saved."""
    if counts(params):
        return False
    asked = params.get("use_cache")
    if isinstance(asked, bool):
        return asked
    if params.get("mode") == "score" or params.get("seed") is not None:
        return True
    return params.get("temperature", _DEFAULTS.temperature) == 0


def counts(params: Params) -> bool:
    """Are the tokens of a prompt all that is asked for? Then nothing is computed."""
    return params.get("mode") == "count"


def answers(params: Params) -> int:
    """How many answers each prompt gets."""
    return _number(params.get("n"), 1)


def labels(params: Params) -> tuple[str, ...]:
    """The labels to score, or whose tokens are to be told; none where text is drawn."""
    return tuple(_list(params.get("choices"))) if params.get("mode") in _UNDRAWN else ()


def length_normalized(params: Params) -> bool:
    """Is a label's score the mean of its tokens' log-likelihoods, instead of their sum?"""
    return params.get("length_normalized") is True


def constraint(params: Params) -> Constraint | None:
    """What a drawn answer has to be; None: any text."""
    if params.get("mode") in _UNDRAWN:
        return None
    if choices := _list(params.get("choices")):
        return Constraint("choices", json.dumps(choices))
    wanted = params.get("response_format")
    return _of_format(wanted) if isinstance(wanted, Mapping) else None


def _of_format(wanted: Mapping[str, Any]) -> Constraint | None:
    match wanted["type"]:
        case "json_object":
            return Constraint("json_schema", '{"type": "object"}')
        case "json_schema":
            schema = wanted["json_schema"]["schema"]
            # Jobs of earlier releases have it as an object, in whatever order.
            return Constraint(
                "json_schema", schema if isinstance(schema, str) else json.dumps(schema)
            )
        case "regex":
            return Constraint("regex", wanted["regex"])
    return None


def _list(value: object) -> list[str]:
    return value if isinstance(value, list) else []


def _number(value: object, default: int) -> int:
    return value if isinstance(value, int) else default
