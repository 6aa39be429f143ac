"""What a run will cost, from a few short jobs of sampled rows. Knows the client and the clock."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass

from penstock.annotation.lint.power import PowerMeter
from penstock.annotation.lint.survey import Drawn
from penstock.annotation.records import Interval, Prompt, Questions
from penstock.client import Client

FEWEST, MOST = 32, 64  # rows of a job that is measured
ROUNDS = 3
WARM_UP = 4  # rows
LONG = 30.0  # seconds after which no further job is begun
Z = 1.2816  # 80 % of a normal distribution
#: Student's t where Z is meant, by the number of jobs.
STUDENT = {2: 3.078, 3: 1.886}
#: Relative standard deviation of what a short job cannot know: the batches of a long one are
#: fuller, its device gets warm, and others come.
UNSEEN = 0.25
LEAST_BUSY = 0.05  # share of a job's seconds


@dataclass(frozen=True, slots=True)
class Measured:
    """One voter's jobs. `seconds` and `tokens`: of each; `empty`: seconds of a job that computes
    nothing, of which a long run has few and a short job has one."""

    rows: int
    prompt_tokens: int
    completion_tokens: int
    seconds: tuple[float, ...]
    tokens: tuple[int, ...]
    empty: float = 0.0
    power: float | None = None  #: watts, meanwhile

    @property
    def pace(self) -> float:
        """Seconds of a token: between that with the empty job's part and that without it."""
        return self._whole * math.sqrt(self._busy)

    @property
    def spread(self) -> float:
        """Half the width, in logarithms, of the 80 % interval of the pace."""
        paces = [math.log(s / max(1, t)) for s, t in zip(self.seconds, self.tokens, strict=True)]
        count = len(paces)
        mean = sum(paces) / count
        chance = 0.0
        if count > 1:
            square = sum((pace - mean) ** 2 for pace in paces) / (count - 1)
            chance = STUDENT.get(count, Z) * math.sqrt(square / count)
        unseen = Z * (UNSEEN if count > 1 else 2 * UNSEEN)
        return math.hypot(chance, unseen, math.log(self._busy) / 2)

    @property
    def _whole(self) -> float:
        return sum(self.seconds) / max(1, sum(self.tokens))

    @property
    def _busy(self) -> float:
        """The share of the seconds that an empty job does not take."""
        return max(LEAST_BUSY, 1 - self.empty * len(self.seconds) / sum(self.seconds))


@dataclass(frozen=True, slots=True)
class Prediction:
    """Of the whole run, all voters one after the other. Seconds, tokens, joules."""

    seconds: Interval
    prompt_tokens: float
    completion_tokens: float
    energy: Interval | None
    measured: int  #: rows


def measure(client: Client, questions: Questions, drawn: Sequence[Drawn]) -> Measured:
    """Run some of `drawn` for real, without the cache of answers. `drawn`: not empty."""
    size = _job_size(client, len(drawn))
    empty = _empty(client, questions, drawn[0].prompts[0])
    _timed(client, questions, drawn[:WARM_UP])
    meter = PowerMeter(client)
    begun = time.monotonic()
    seconds, tokens, used = [], [], (0, 0)
    for number in range(ROUNDS):
        rows = drawn[number * size : (number + 1) * size]
        if not rows or (number and time.monotonic() - begun > LONG):
            break
        took, prompt, completion = _timed(client, questions, rows)
        seconds.append(took)
        tokens.append(prompt + completion)
        used = (used[0] + prompt, used[1] + completion)
    count = min(len(drawn), size * len(seconds))
    return Measured(count, *used, tuple(seconds), tuple(tokens), empty, meter.watts())


def predict(measured: Sequence[Measured], rows: int, mean: float, spread: float) -> Prediction:
    """Of `rows` rows. `mean`: counted prompt tokens of a row of the first voter, with the standard
    error `spread` (relative)."""
    bounds, joules = [0.0, 0.0, 0.0], [0.0, 0.0, 0.0]
    prompt_tokens = completion_tokens = 0.0
    for number, each in enumerate(measured):
        prompts = mean if number == 0 and mean else each.prompt_tokens / each.rows
        answers = each.completion_tokens / each.rows
        prompt_tokens += rows * prompts
        completion_tokens += rows * answers
        middle = rows * (prompts + answers) * each.pace
        factor = math.exp(math.hypot(each.spread, Z * spread))
        for place, value in enumerate((middle / factor, middle, middle * factor)):
            bounds[place] += value
            joules[place] += value * (each.power or 0.0)
    told = all(each.power is not None for each in measured)
    return Prediction(
        Interval(*bounds),
        prompt_tokens,
        completion_tokens,
        Interval(*joules) if told else None,
        sum(each.rows for each in measured),
    )


def _job_size(client: Client, drawn: int) -> int:
    """As many rows as the engine runs at once, if there are so many."""
    at_once = client.stats().model.max_rows or FEWEST
    return max(1, min(MOST, max(FEWEST, at_once), drawn // ROUNDS))


def _empty(client: Client, questions: Questions, prompt: Prompt) -> float:
    """Seconds of a job that computes nothing: the queue's part of the others."""
    fields = {"model": questions.body["model"]} if "model" in questions.body else {}
    begun = time.monotonic()
    client.submit([prompt], idempotency_key=None, mode="count", **fields).wait(
        math.inf, progress=False
    )
    return time.monotonic() - begun


def _timed(client: Client, questions: Questions, rows: Sequence[Drawn]) -> tuple[float, int, int]:
    """Seconds and tokens of one job."""
    prompts = [prompt for row in rows for prompt in row.prompts]
    begun = time.monotonic()
    body = {**questions.body, "use_cache": False}
    job = client.submit(prompts, idempotency_key=None, **body)
    try:
        end = job.wait(math.inf, progress=False)
    except KeyboardInterrupt:
        job.cancel()
        raise
    usage = end.usage
    return time.monotonic() - begun, usage.prompt_tokens, usage.completion_tokens
