"""What an answer has to be, as a grammar: built, and refused when it cannot be met. Torch-free, so
that requests are checked where they come in. Knows no model's tokenizer.

Untrusted: sizes are bounded here, the work of the parser by `LIMITS`, and nothing is fetched.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from functools import cache, lru_cache
from typing import Any

from llguidance import LLMatcher, LLParserLimits, LLTokenizer, TokenizerWrapper, regex_to_lark

from models.runner import Constraint
from penstock.errors import InvalidRequest

MOST_BYTES = 65_536  #: of a schema, a regular expression or all choices
#: Milliseconds for each mask at worst, and about 2 kB for each state.
LIMITS = LLParserLimits(
    max_items_in_row=10_000,
    initial_lexer_fuel=1_000_000,
    step_lexer_fuel=200_000,
    step_max_items=50_000,
    max_lexer_states=20_000,
    max_grammar_size=200_000,
    verbose_errors=False,
)
#: Forced text would be computed ahead, however long it is.
HEADER = '%llguidance {"no_forcing": true}\n'
#: Between the parts of a JSON text: without a bound some models write nothing else.
WHITESPACE = {"whitespace_pattern": r"[ \n\t]{0,20}"}
MOST_EXAMPLE = 1_024  #: bytes
#: What an example is made of, best first; of the others each comes in turn.
CLOSING = b'"}]'
LIKED = (*CLOSING, *b":{[0123456789", *range(97, 123), *range(65, 91), *b",-_. ", *range(256))


def param_of(constraint: Constraint) -> str:
    """The field of a request that it comes from."""
    return "choices" if constraint.kind == "choices" else "response_format"


def grammar_of(constraint: Constraint) -> str:
    """The grammar in llguidance's language. Raises InvalidRequest when it is too large or no JSON.
    Whether it can be met is not known yet."""
    try:
        size = len(constraint.value.encode())
    except UnicodeEncodeError as error:
        raise refused(constraint, "it has half a surrogate pair") from error
    if size > MOST_BYTES:
        raise refused(constraint, f"it has {size} bytes, {MOST_BYTES} are allowed")
    if constraint.kind == "regex":
        # \d means 0 to 9: readers of other languages know no other digits.
        return f"{HEADER}start: /{regex_to_lark(constraint.value, 'd')}/"
    try:
        value = json.loads(constraint.value)
        if constraint.kind == "choices":
            return HEADER + _choices(constraint, value)
        return HEADER + "start: %json " + _schema(constraint, value)
    except (ValueError, RecursionError) as error:
        raise refused(constraint, "it is not valid JSON, or nested too deeply") from error


def check_constraint(constraint: Constraint) -> None:
    """Raises InvalidRequest, naming the field, for a constraint that no answer can meet."""
    if (reason := why_not(constraint)) is not None:
        raise InvalidRequest(reason, param=param_of(constraint))


@lru_cache(maxsize=64)
def why_not(constraint: Constraint) -> str | None:
    """The reason that no answer can meet it. Kept: a file's lines share one, often, and each look
    takes milliseconds."""
    try:
        start(constraint, _bytes_tokenizer())
    except InvalidRequest as refusal:
        return refusal.message
    return None


def start(constraint: Constraint, tokenizer: LLTokenizer) -> LLMatcher:
    """A matcher at the beginning of an answer. Raises InvalidRequest."""
    matcher = LLMatcher(tokenizer, grammar_of(constraint), log_level=0, limits=LIMITS)
    mask = 0
    if not matcher.is_error():
        mask = int.from_bytes(matcher.compute_bitmask(), "little")
    if matcher.is_error():
        raise refused(constraint, _reason(matcher.get_error()))
    if not mask & ~sum(1 << end for end in tokenizer.eos_tokens):
        raise refused(constraint, "only an empty answer meets it")
    return matcher


@lru_cache(maxsize=64)
def example(constraint: Constraint) -> tuple[str, bool]:
    """A short text that meets a constraint, or else the beginning of one, and whether it is whole.
    Raises InvalidRequest."""
    matcher = start(constraint, _bytes_tokenizer())
    text, used = bytearray(), Counter[int]()
    for _ in range(MOST_EXAMPLE):
        mask = int.from_bytes(matcher.compute_bitmask(), "little")
        if matcher.is_stopped() or mask >> _Bytes.eos_token_id & 1:
            break
        allowed = [byte for byte in LIKED if mask >> byte & 1]
        byte = allowed[0] if allowed[0] in CLOSING else min(allowed, key=used.__getitem__)
        used[byte] += 1
        matcher.consume_token(byte)
        text.append(byte)
    return text.decode("utf-8", "replace"), matcher.is_accepting()


def refused(constraint: Constraint, reason: str) -> InvalidRequest:
    name = {"choices": "choices", "json_schema": "JSON schema", "regex": "regular expression"}
    what = name[constraint.kind]
    return InvalidRequest(f"The {what} cannot be used: {reason}.", param=param_of(constraint))


def _choices(constraint: Constraint, choices: Any) -> str:
    """One terminal, not a rule for each choice: there may be thousands."""
    if not isinstance(choices, list) or not all(isinstance(c, str) and c for c in choices):
        raise refused(constraint, "they have to be a list of texts, none of them empty")
    if not choices:
        raise refused(constraint, "there are none")
    for choice in choices:
        choice.encode()  # refuses half a surrogate pair, which JSON can spell
    return "start: CHOICE\nCHOICE: " + " | ".join(json.dumps(choice) for choice in choices)


def _schema(constraint: Constraint, schema: Any) -> str:
    if isinstance(schema, bool):
        schema = {} if schema else {"not": {}}
    if not isinstance(schema, dict):
        raise refused(constraint, "a schema is an object")
    return json.dumps({**schema, "x-guidance": WHITESPACE})


def _reason(message: str) -> str:
    """One short line: the message holds the grammar, too."""
    if "NoExtensionBias" in message:
        return "no answer meets it"
    found = re.search(r"(?:error|JSON schema): (.+)", message)
    return (found[1] if found else message.partition("\n")[0]).strip().rstrip(".")[:200]


class _Bytes:
    """The tokenizer of bytes: token 256 is the end."""

    eos_token_id = 256
    bos_token_id = None
    special_token_ids = (256,)
    tokens = (*(bytes([byte]) for byte in range(256)), b"<end>")

    def __call__(self, text: bytes) -> list[int]:
        return list(text)


@cache
def _bytes_tokenizer() -> LLTokenizer:
    return LLTokenizer(TokenizerWrapper(_Bytes()))
