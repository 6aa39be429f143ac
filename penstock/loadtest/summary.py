"""Samples to figures. Times in seconds, rates by the second. Knows no HTTP and prints nothing."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from penstock.loadtest.samples import Sample


@dataclass(frozen=True, slots=True)
class Distribution:
    """Of one kind of time, in seconds."""

    count: int
    mean: float
    p50: float
    p90: float
    p99: float
    max: float


@dataclass(frozen=True, slots=True)
class Summary:
    """What a run came to. Rates are over `seconds`, from the first request to the last answer;
    times are of requests that were answered."""

    requests: int
    answered: int
    errors: dict[str, int]
    late: int  #: due, and not sent before the time was up
    interrupted: bool
    seconds: float
    requests_per_s: float
    prompt_tokens: int
    output_tokens: int
    output_tokens_per_s: float
    estimated: bool  #: some servers' answers had no usage: their pieces were counted as tokens
    latency: Distribution | None
    time_to_first: Distribution | None
    time_per_token: Distribution | None


def summarize(samples: Sequence[Sample], *, late: int = 0, interrupted: bool = False) -> Summary:
    """All figures of a run."""
    good = [sample for sample in samples if sample.error is None]
    start = min((sample.due for sample in samples), default=0.0)
    seconds = max((sample.ended for sample in samples), default=0.0) - start
    output = sum(sample.output_tokens for sample in good)
    return Summary(
        requests=len(samples),
        answered=len(good),
        errors=dict(Counter(s.error for s in samples if s.error is not None).most_common()),
        late=late,
        interrupted=interrupted,
        seconds=seconds,
        requests_per_s=_rate(len(good), seconds),
        prompt_tokens=sum(sample.prompt_tokens for sample in good),
        output_tokens=output,
        output_tokens_per_s=_rate(output, seconds),
        estimated=any(sample.estimated for sample in good),
        latency=distribution([sample.latency for sample in good]),
        time_to_first=distribution([s.time_to_first for s in good]),
        time_per_token=distribution([s.time_per_token for s in good]),
    )


def distribution(times: Sequence[float | None]) -> Distribution | None:
    """Of the times that are known; None where none is."""
    known = sorted(time for time in times if time is not None)
    if not known:
        return None
    return Distribution(
        count=len(known),
        mean=math.fsum(known) / len(known),
        p50=percentile(known, 0.5),
        p90=percentile(known, 0.9),
        p99=percentile(known, 0.99),
        max=known[-1],
    )


def percentile(ordered: Sequence[float], share: float) -> float:
    """The value below which a `share` of the ordered ones lies, on the line between neighbors."""
    place = share * (len(ordered) - 1)
    below = math.floor(place)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (ordered[above] - ordered[below]) * (place - below)


def _rate(count: int, seconds: float) -> float:
    return count / seconds if seconds > 0 else 0.0
