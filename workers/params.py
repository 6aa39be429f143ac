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


def sampling_params(params: Params) -> SamplingParams:
    """How the tokens of an answer are chosen."""
    same = {name: params[name] for name in _SAME if name in params}
    return SamplingParams(
        **same,  # type: ignore[arg-type]  # written by our own schema
        stop=tuple(_list(params.get("stop"))),
        logprobs=_number(params.get("top_logprobs"), 0) if params.get("logprobs") else None,
        constraint=constraint(params),
    )


def answers(params: Params) -> int:
    """How many answers each prompt gets."""
    return _number(params.get("n"), 1)


def labels(params: Params) -> tuple[str, ...]:
    """The labels to score; none where text is drawn."""
    return tuple(_list(params.get("choices"))) if params.get("mode") == "score" else ()


def constraint(params: Params) -> Constraint | None:
    """What a drawn answer has to be; None: any text."""
    if params.get("mode") == "score":
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
            return Constraint("json_schema", json.dumps(wanted["json_schema"]["schema"]))
        case "regex":
            return Constraint("regex", wanted["regex"])
    return None


def _list(value: object) -> list[str]:
    return value if isinstance(value, list) else []


def _number(value: object, default: int) -> int:
    return value if isinstance(value, int) else default
