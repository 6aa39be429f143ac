"""OpenAI's parameters that have no effect here: refused by name unless they ask for nothing.

Knows no endpoint's other fields.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from penstock.errors import InvalidRequest

Neutral = Mapping[str, tuple[object, ...]]

CHAT: Final = "/v1/chat/completions"
TEXT: Final = "/v1/completions"

#: By endpoint, each with the values that ask for nothing.
NEUTRAL: Final[Mapping[str, Neutral]] = {
    CHAT: {
        "audio": (),
        "function_call": ("none", "auto"),  # without functions it has nothing to choose from
        "functions": ([],),
        "logit_bias": ({},),
        "modalities": (["text"],),
        "moderation": (),
        "parallel_tool_calls": (True, False),
        "prediction": (),
        "prompt_cache_options": (),
        "prompt_cache_retention": ("in_memory",),
        "reasoning_effort": (),
        "service_tier": ("auto", "default"),
        "store": (False,),
        "tool_choice": ("none", "auto"),
        "tools": ([],),
        "verbosity": ("medium",),
        "web_search_options": (),
    },
    TEXT: {
        "best_of": (1,),
        "echo": (False,),
        "logit_bias": ({},),
        "suffix": ("",),
        "top_logprobs": (),
    },
}
STREAM_OPTIONS: Final[Neutral] = {"include_obfuscation": (False,)}
MESSAGE: Final[Neutral] = {
    "annotations": ([],),
    "audio": (),
    "function_call": (),
    "name": (),
    "refusal": (),
    "tool_calls": ([],),
}
PART: Final[Neutral] = {"prompt_cache_breakpoint": ()}


class UnsupportedParameter(InvalidRequest):
    """A parameter of OpenAI's that has no effect here."""

    code = "unsupported_parameter"


def drop_neutral(members: dict[str, object], neutral: Neutral, path: str = "") -> None:
    """Take what has no effect out of `members`. Raises `UnsupportedParameter` for what asks for
    something."""
    for name in neutral.keys() & members.keys():
        value = members.pop(name)
        if value is not None and not any(_same(value, nothing) for nothing in neutral[name]):
            where = f"{path}{name}"
            raise UnsupportedParameter(f"`{where}` is not supported: leave it out.", param=where)


def _same(value: object, other: object) -> bool:
    return type(value) is type(other) and value == other  # 1 is not True
