"""OpenAI's `messages` and `prompt` to what is stored: (role, content) turns. Knows no endpoint.

A raw prompt is a single turn of the role `RAW`: it is read without a chat template.
"""

from __future__ import annotations

from typing import Final

from api import intake
from api.errors import printable
from api.openai_parameters import MESSAGE, PART, UnsupportedParameter, drop_neutral
from penstock.errors import InvalidRequest
from storage.records import RAW, Messages

ROLES: Final = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "assistant": "assistant",
}
BETWEEN_PARTS: Final = "\n"
PROMPT: Final = "prompt"


def read_messages(messages: object, max_bytes: int) -> Messages:
    """The turns of a chat. Raises `InvalidRequest`."""
    if not isinstance(messages, list) or not messages:
        problem = "is missing" if messages is None else "has to be a list of messages"
        raise InvalidRequest(f"`messages` {problem}.", param="messages")
    return _checked([_turn(turn, f"messages[{at}]") for at, turn in enumerate(messages)], max_bytes)


def read_prompt(prompt: object, max_bytes: int) -> Messages:
    """One raw prompt. Raises `InvalidRequest`."""
    if isinstance(prompt, list) and len(prompt) == 1:
        prompt = prompt[0]
    if isinstance(prompt, list) and all(isinstance(one, str) for one in prompt):
        raise UnsupportedParameter("`prompt` has to be one text: send others apart.", param=PROMPT)
    if not isinstance(prompt, str):
        problem = "is missing" if prompt is None else "has to be a text, not tokens"
        raise InvalidRequest(f"`prompt` {problem}.", param=PROMPT)
    ((_, text),) = _checked(prompt, max_bytes, PROMPT)
    return ((RAW, text),)


def _checked(prompt: object, max_bytes: int, param: str = "messages") -> Messages:
    """Its size and characters, as of every prompt."""
    read = intake.to_prompt(prompt, max_bytes)
    if read.messages is None:
        raise InvalidRequest(read.error_message, param=param)
    return read.messages


def _turn(turn: object, at: str) -> dict[str, str]:
    if not isinstance(turn, dict):
        raise InvalidRequest(f"`{at}` has to be an object.", param=at)
    members = dict(turn)
    drop_neutral(members, MESSAGE, f"{at}.")
    role, content = members.pop("role", None), members.pop("content", None)
    _refuse_rest(members, at)
    if not isinstance(role, str) or role not in ROLES:
        where = f"{at}.role"
        raise InvalidRequest(
            f"`{where}` has to be system, developer, user or assistant.", param=where
        )
    return {"role": ROLES[role], "content": _content(content, f"{at}.content")}


def _content(content: object, at: str) -> str:
    if isinstance(content, str):
        return content
    if not isinstance(content, list) or not content:
        raise InvalidRequest(f"`{at}` has to be a text or a list of text parts.", param=at)
    return BETWEEN_PARTS.join(_part(part, f"{at}[{n}]") for n, part in enumerate(content))


def _part(part: object, at: str) -> str:
    members = dict(part) if isinstance(part, dict) else {}
    if members.pop("type", None) != "text":
        raise UnsupportedParameter(f"`{at}.type` has to be text.", param=f"{at}.type")
    drop_neutral(members, PART, f"{at}.")
    text = members.pop("text", None)
    _refuse_rest(members, at)
    if not isinstance(text, str):
        raise InvalidRequest(f"`{at}.text` has to be a text.", param=f"{at}.text")
    return text


def _refuse_rest(members: dict[str, object], at: str) -> None:
    for name in members:
        where = f"{at}.{printable(name)}"
        raise InvalidRequest(f"`{where}` is not a field of this request.", param=where)
