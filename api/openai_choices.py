"""A stored result as OpenAI's `choices`, with log-probabilities in its two forms.

Scored labels come as Penstock's own `probabilities` and `scores`. Knows no endpoint and no SQL.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import accumulate
from typing import Any, Final

from storage.records import Params, ResultRow

Detail = Mapping[str, Any]

REPLACEMENT: Final = "\ufffd"  # stands in a token's text for bytes that are no whole character
SCORED: Final = ("probabilities", "scores")


def chat_choices(row: ResultRow, detail: Detail | None, asked: Params) -> list[dict[str, object]]:
    """Those of a chat."""
    return [
        {
            "index": index,
            "message": {"role": "assistant", "content": one["text"], "refusal": None},
            "logprobs": chat_logprobs(one, asked),
            "finish_reason": one["finish_reason"],
            **scored(detail),
        }
        for index, one in enumerate(_answers(row, detail))
    ]


def text_choices(row: ResultRow, detail: Detail | None, asked: Params) -> list[dict[str, object]]:
    """Those of a text that went on."""
    return [
        {
            "index": index,
            "text": one["text"],
            "logprobs": text_logprobs(one, asked),
            "finish_reason": one["finish_reason"],
            **scored(detail),
        }
        for index, one in enumerate(_answers(row, detail))
    ]


def _answers(row: ResultRow, detail: Detail | None) -> list[Detail]:
    """Each with `text`, `finish_reason` and, where there are any, `logprobs`."""
    if detail is not None and "completions" in detail:
        several: list[Detail] = detail["completions"]
        return several
    return [
        {"logprobs": [], **(detail or {}), "text": row.text, "finish_reason": row.finish_reason}
    ]


def scored(detail: Detail | None) -> dict[str, object]:
    """What mode `score` found, beside the likeliest label."""
    return {name: detail[name] for name in SCORED if name in detail} if detail else {}


def chat_logprobs(answer: Detail | None, asked: Params) -> dict[str, object] | None:
    """`content` has an entry for each token of the answer. None where nobody asked."""
    if not asked.get("logprobs"):
        return None
    tokens = (answer or {}).get("logprobs", ())
    content = [
        {**_token(one), "top_logprobs": [_token(other) for other in one["top_logprobs"]]}
        for one in tokens
    ]
    return {"content": content, "refusal": None}


def _token(one: Detail) -> dict[str, object]:
    token: str = one["token"]
    known = REPLACEMENT not in token
    return {
        "token": token,
        "logprob": one["logprob"],
        "bytes": list(token.encode("utf-8", "surrogatepass")) if known else None,
    }


def text_logprobs(answer: Detail | None, asked: Params) -> dict[str, object] | None:
    """Lists beside each other; offsets count the characters of the answer. None where nobody
    asked."""
    if not asked.get("logprobs"):
        return None
    tokens = (answer or {}).get("logprobs", ())
    texts = [one["token"] for one in tokens]
    offsets = [0, *accumulate(len(text) for text in texts)]
    return {
        "tokens": texts,
        "token_logprobs": [one["logprob"] for one in tokens],
        "top_logprobs": [_best(one) for one in tokens] if asked.get("top_logprobs") else None,
        "text_offset": offsets[: len(texts)],
    }


def _best(one: Detail) -> dict[str, float]:
    """The likeliest tokens and the one that was drawn. Of two with one text the likelier counts."""
    drawn = {one["token"]: one["logprob"]}
    return {
        **drawn,
        **{other["token"]: other["logprob"] for other in reversed(one["top_logprobs"])},
    }
