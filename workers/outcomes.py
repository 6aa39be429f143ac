"""What the engine says of a prompt, as it is stored. Knows neither's machinery."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Final

from batching.requests import Completion, EngineOutcome, EngineRequest
from models.runner import FinishReason, TokenLogprob
from penstock.errors import PromptError
from storage.records import Outcome
from storage.text import storable_json

#: JSON has no infinity; OpenAI's lowest log-probability stands for it.
LOWEST: Final = -9999.0
#: Beside a text: earlier turns of its chat that were left out of the prompt.
DROPPED: Final = "dropped_turns"


def as_outcome(
    position: int,
    outcome: EngineOutcome,
    labels: Sequence[str] = (),
    *,
    length_normalized: bool = False,
) -> Outcome:
    """A result or an error; a scored prompt is answered by the likeliest of its `labels`, by the
    sum of their tokens' log-likelihoods, or `length_normalized` by the mean."""
    if outcome.error is not None:
        return failed(
            position,
            outcome.error,
            outcome.message,
            outcome.prompt_tokens,
            outcome.completion_tokens,
        )
    text, detail = outcome.text, _detail(outcome.completions)
    if labels:
        scores = _means(outcome) if length_normalized else outcome.scores
        probabilities = softmax(scores)
        text = labels[max(range(len(labels)), key=probabilities.__getitem__)]
        detail = {
            "probabilities": dict(zip(labels, probabilities, strict=True)),
            "scores": dict(zip(labels, map(_finite, scores), strict=True)),
        }
    return Outcome(
        position=position,
        text=text,
        finish_reason=outcome.finish.value,
        prompt_tokens=outcome.prompt_tokens,
        completion_tokens=outcome.completion_tokens,
        detail=None if detail is None else storable_json(detail),
    )


def counted(position: int, request: EngineRequest, labels: Sequence[str] = ()) -> Outcome:
    """Of a prompt whose tokens are all that was asked for: their number, and those of `labels`."""
    detail = {"choices": dict(zip(labels, map(list, request.choices), strict=True))}
    return Outcome(
        position=position,
        text="",
        finish_reason=FinishReason.STOP.value,
        prompt_tokens=len(request.prompt),
        completion_tokens=0,
        detail=storable_json(detail) if labels else None,
        counted=True,
    )


def with_dropped(outcome: Outcome, turns: int) -> Outcome:
    """Says how many earlier turns were left out of this prompt, whatever was said of an equal one
    whose answer it got."""
    if not turns and DROPPED not in (outcome.detail or ""):
        return outcome
    detail = {} if outcome.detail is None else json.loads(outcome.detail)
    detail.pop(DROPPED, None)
    if turns:
        detail[DROPPED] = turns
    return replace(outcome, detail=storable_json(detail) if detail else None)


def failed(
    position: int,
    code: PromptError,
    message: str | None,
    prompt_tokens: int = 0,
    completion_tokens: int = 0,
) -> Outcome:
    """A prompt that has a reason instead of a result."""
    return Outcome(
        position=position,
        text=None,
        finish_reason=None,
        prompt_tokens=prompt_tokens,
        completion_tokens=completion_tokens,
        error_code=code.value,
        error_message=message,
    )


def softmax(scores: Sequence[float]) -> list[float]:
    """Natural log-likelihoods as probabilities among each other."""
    best = max(scores)
    if not math.isfinite(best):  # nothing is possible: nothing is likelier
        return [1 / len(scores)] * len(scores)
    weights = [math.exp(score - best) for score in scores]
    total = math.fsum(weights)
    return [weight / total for weight in weights]


def _means(outcome: EngineOutcome) -> list[float]:
    """Log-likelihoods per token, so that a long label has no handicap (Brown et al. 2020)."""
    pairs = zip(outcome.scores, outcome.choices, strict=True)
    return [score / len(choice) for score, choice in pairs]


def _detail(completions: Sequence[Completion]) -> Mapping[str, object] | None:
    """What was drawn beside the first text: None where there is nothing."""
    if len(completions) > 1:
        return {"completions": [_completion(one) for one in completions]}
    if completions and completions[0].logprobs:
        return {"logprobs": _logprobs(completions[0].logprobs)}
    return None


def _completion(one: Completion) -> dict[str, object]:
    shown: dict[str, object] = {
        "text": one.text,
        "finish_reason": one.finish.value,
        "tokens": one.tokens,
    }
    return {**shown, "logprobs": _logprobs(one.logprobs)} if one.logprobs else shown


def _logprobs(tokens: Sequence[TokenLogprob]) -> list[dict[str, object]]:
    """OpenAI's `logprobs.content`."""
    return [
        {
            "token": one.token,
            "logprob": _finite(one.logprob),
            "top_logprobs": [
                {"token": token, "logprob": _finite(logprob)} for token, logprob in one.top
            ],
        }
        for one in tokens
    ]


def _finite(value: float) -> float:
    return value if math.isfinite(value) else LOWEST
