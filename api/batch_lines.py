"""The lines of a batch's input file as prompts, or what is wrong with each.

Holds one line at a time. Knows OpenAI's form of a line; knows no HTTP and no SQL.
"""

from __future__ import annotations

import codecs
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import BinaryIO, Final

from api.config import BODY_SLACK
from api.errors import printable
from api.json_body import JSON_FACTOR, parse_object
from api.openai_bodies import Call, parse_call
from penstock.errors import InvalidRequest, TooLarge
from storage.records import NewPrompt
from storage.text import is_storable

MAX_CUSTOM_ID: Final = 512  # characters
MEMBERS: Final = ("custom_id", "method", "url", "body")
#: Errors that are told of one file; the rest is not looked for.
MAX_ERRORS: Final = 100


@dataclass(frozen=True, slots=True)
class LineError:
    """One entry of a batch's `errors`."""

    code: str
    message: str
    param: str | None = None
    line: int | None = None


class BadLine(Exception):
    """Raised for a line that cannot run; `custom_id` where it could be read."""

    def __init__(
        self, code: str, message: str, param: str | None = None, custom_id: str | None = None
    ) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.param = param
        self.custom_id = custom_id


class BadFile(Exception):
    """Raised when nothing of the file is to run."""

    def __init__(self, *errors: LineError) -> None:
        super().__init__(errors[0].code)
        self.errors = errors


class Stopped(Exception):
    """Raised when the process is about to end."""


@dataclass(frozen=True, slots=True)
class Rules:
    """What a file is read by."""

    endpoint: str
    configured: str  #: the model of lines that name none
    served: frozenset[str]
    quarantine: bool
    max_lines: int
    max_prompt_bytes: int

    @property
    def max_line_bytes(self) -> int:
        return JSON_FACTOR * self.max_prompt_bytes + BODY_SLACK


def find_model(stream: BinaryIO, rules: Rules, stopping: Callable[[], bool]) -> str:
    """The model of the first line that can run; all have to have the same."""
    for _, line in _lines(stream, rules.max_line_bytes, stopping):
        try:
            return _model(_call(_members(line), rules), rules)
        except BadLine:
            continue
    return rules.configured


def read_prompts(
    stream: BinaryIO, rules: Rules, model: str, stopping: Callable[[], bool]
) -> Iterator[NewPrompt]:
    """The lines in order; with `quarantine` the bad ones as prompts that cannot run. Raises
    `BadFile` at the end where a bad line is one too many."""
    seen: set[str] = set()
    errors: list[LineError] = []
    count = 0
    for number, line in _lines(stream, rules.max_line_bytes, stopping):
        count += 1
        if count > rules.max_lines:
            message = f"The file has more than {rules.max_lines} lines."
            raise BadFile(*errors, LineError("too_many_tasks", message, line=number))
        try:
            prompt = _prompt(line, rules, model, seen)
        except BadLine as bad:
            if rules.quarantine:
                yield _quarantined(number, bad)
                continue
            errors.append(LineError(bad.code, bad.message, bad.param, number))
            if len(errors) == MAX_ERRORS:
                message = "The file has too many errors; it was read no further."
                raise BadFile(*errors, LineError("too_many_errors", message)) from None
        else:
            if not errors:
                yield prompt
    if not count:
        raise BadFile(LineError("empty_file", "The file has no lines."))
    if errors:
        raise BadFile(*errors)


def _lines(
    stream: BinaryIO, most: int, stopping: Callable[[], bool]
) -> Iterator[tuple[int, bytes | None]]:
    """(number, line) of all that are not blank; None stands for one that is too long."""
    number = 0
    while line := stream.readline(most + 1):
        if stopping():
            raise Stopped
        number += 1
        if number == 1:
            line = line.removeprefix(codecs.BOM_UTF8)
        if len(line) > most and not line.endswith(b"\n"):
            while line and not line.endswith(b"\n"):
                line = stream.readline(most)
            yield number, None
        elif line.strip():
            yield number, line


def _prompt(line: bytes | None, rules: Rules, model: str, seen: set[str]) -> NewPrompt:
    members = _members(line)
    custom_id = _custom_id(members)
    try:
        if custom_id in seen:
            raise BadLine("duplicate_custom_id", "An earlier line has it, too.", "custom_id")
        seen.add(custom_id)
        call = _call(members, rules)
        if _model(call, rules) != model:
            message = f"All lines have to be for one model; the file began with `{model}`."
            raise BadLine("model_mismatch", message, "body.model")
    except BadLine as bad:
        bad.custom_id = custom_id
        raise
    return NewPrompt(call.messages, params=call.params, custom_id=custom_id)


def _members(line: bytes | None) -> dict[str, object]:
    if line is None:
        raise BadLine("line_too_large", "The line is longer than a request may be.")
    try:
        return parse_object(bytearray(line))
    except (InvalidRequest, TooLarge) as error:
        message = error.message.replace("The body", "The line", 1)
        raise BadLine("invalid_json_line", message) from None


def _custom_id(members: dict[str, object]) -> str:
    custom_id = members.get("custom_id")
    if custom_id is None:
        raise _missing("custom_id")
    if not isinstance(custom_id, str) or not 0 < len(custom_id) <= MAX_CUSTOM_ID:
        message = f"`custom_id` has to be a text of 1 to {MAX_CUSTOM_ID} characters."
        raise BadLine("invalid_custom_id", message, "custom_id")
    if not is_storable(custom_id):
        message = "`custom_id` holds NUL or half a surrogate pair."
        raise BadLine("invalid_custom_id", message, "custom_id")
    return custom_id


def _call(members: dict[str, object], rules: Rules) -> Call:
    """What a line asks for, by the rules of its endpoint."""
    for name in MEMBERS:
        if members.get(name) is None:
            raise _missing(name)
    for name in members:
        if name not in MEMBERS:
            shown = printable(name)
            raise BadLine("unknown_parameter", f"`{shown}` is not a member of a line.", shown)
    if members["method"] != "POST":
        raise BadLine("invalid_method", "`method` has to be POST.", "method")
    if members["url"] != rules.endpoint:
        raise BadLine("url_mismatch", f"The batch is for {rules.endpoint}.", "url")
    body = members["body"]
    if not isinstance(body, dict):
        raise BadLine("invalid_request", "`body` has to be a JSON object.", "body")
    try:
        call = parse_call(rules.endpoint, body, rules.max_prompt_bytes)
    except (InvalidRequest, TooLarge) as error:
        param = f"body.{error.param}" if error.param else "body"
        raise BadLine(error.code, error.message, param) from None
    _check_whole_batch(call)
    return call


def _check_whole_batch(call: Call) -> None:
    """What is asked of a batch, and not of one of its lines."""
    for name, given in (
        ("stream", call.stream),
        ("metadata", call.metadata),
        ("priority", call.priority),
    ):
        if given:
            raise BadLine(
                "unsupported_parameter", f"`{name}` does not go with a batch.", f"body.{name}"
            )


def _model(call: Call, rules: Rules) -> str:
    model = call.model or rules.configured
    if model not in rules.served:
        names = ", ".join(sorted(rules.served))
        raise BadLine("model_not_found", f"There is no such model; served: {names}.", "body.model")
    return model


def _missing(name: str) -> BadLine:
    return BadLine("missing_required_parameter", f"`{name}` is missing.", name)


def _quarantined(number: int, bad: BadLine) -> NewPrompt:
    message = f"Line {number}: {bad.message}"
    return NewPrompt(None, bad.code, message, custom_id=bad.custom_id)
