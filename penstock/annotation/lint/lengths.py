"""The tokens of prompts as the model counts them: distribution, and rows that have too many.

Nothing is computed for it: the service tokenizes, and answers with numbers.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from penstock.annotation.lint.survey import SHOWN
from penstock.annotation.records import Count, Prompt, Questions
from penstock.client import Answer, Client
from penstock.errors import PromptError

PART = 5_000  # prompts of one job
FEW_BARS = 12
KEPT = ("model", "system")  # of a job's fields, what its tokens depend on

Asked = Iterable[tuple[str, Sequence[Prompt]]]


@dataclass
class Lengths:
    """Of prompts. `room`: tokens that an answer may take; `asked`: of the rows that fit; `places`:
    the first of those that do not; `failed`: of those that could not be counted."""

    context: int | None = None
    room: int = 0
    rows: int = 0
    asked: int = 0
    tokens: Counter[int] = field(default_factory=Counter)
    too_long: int = 0
    cut: int = 0
    places: dict[str, list[str]] = field(default_factory=lambda: {"too_long": [], "cut": []})
    failed: list[str] = field(default_factory=list)

    def add(self, place: str, answers: Sequence[Answer]) -> None:
        """The answers to one row's prompts."""
        self.rows += 1
        counts = [answer.tokens[0] for answer in answers if answer.tokens is not None]
        self.tokens.update(counts)
        bad = next((answer for answer in answers if answer.text is None), None)
        if bad is not None and bad.code != PromptError.TOO_LONG:
            if len(self.failed) < SHOWN:
                self.failed.append(f"{place}: {bad.message}")
        elif counts:
            self._fit(place, max(counts), sum(counts))

    def _fit(self, place: str, most: int, tokens: int) -> None:
        if self.context is not None and most >= self.context:
            self.too_long += 1
            self._note("too_long", place, most)
            return
        self.asked += tokens
        if self.context is not None and most + self.room > self.context:
            self.cut += 1
            self._note("cut", place, most)

    def _note(self, what: str, place: str, tokens: int) -> None:
        if len(self.places[what]) < SHOWN:
            self.places[what].append(f"{place} ({tokens:,} tokens)")

    @property
    def prompts(self) -> int:
        return sum(self.tokens.values())

    @property
    def mean(self) -> float:
        """Tokens of a row that are read, all its prompts together."""
        return self.asked / max(1, self.rows)

    @property
    def spread(self) -> float:
        """Standard error of the mean, relative to it, as far as one prompt tells of another."""
        count = self.prompts
        if count < 2:
            return 0.0
        mean = sum(tokens * n for tokens, n in self.tokens.items()) / count
        square = sum(n * (tokens - mean) ** 2 for tokens, n in self.tokens.items()) / (count - 1)
        return math.sqrt(square / count) / mean if mean else 0.0

    def quantile(self, share: float) -> int:
        """Tokens that so many prompts have at most."""
        left = share * self.prompts
        for tokens in sorted(self.tokens):
            left -= self.tokens[tokens]
            if left <= 0:
                return tokens
        return max(self.tokens, default=0)

    def bars(self, most: int = FEW_BARS) -> list[tuple[int, int, int]]:
        """(from, below, prompts), equally wide, at round bounds; the last one also has the few
        that are far longer than most."""
        if not self.tokens:
            return []
        low, high = min(self.tokens), max(self.tokens)
        far = low + 2 * (self.quantile(0.95) - low)
        width = _round_up((min(high, far) + 1 - low) / most)
        first = low // width * width
        last = (min(high, far) - first) // width
        counts: Counter[int] = Counter()
        for tokens, count in self.tokens.items():
            counts[min((tokens - first) // width, last)] += count
        return [
            (first + number * width, first + (number + 1) * width, counts[number])
            for number in range(last + 1)
        ]


def count_tokens(
    client: Client, questions: Questions, asked: Asked, lengths: Lengths, count: Count
) -> None:
    """Count the prompts of rows into `lengths`, some thousand at a time."""
    for part in _parts(asked):
        prompts = [prompt for _, prompts in part for prompt in prompts]
        answers = _counted(client, questions, prompts)
        for place, own in part:
            lengths.add(place, [next(answers) for _ in own])
        count(lengths.rows)


def tokens_of(client: Client, questions: Questions, prompt: Prompt) -> int | None:
    """Of one prompt; None where the service cannot say."""
    [answer] = _counted(client, questions, [prompt])
    return answer.tokens[0] if answer.tokens is not None else None


def label_tokens(
    client: Client, questions: Questions, prompt: Prompt, labels: Sequence[str]
) -> Mapping[str, list[int]]:
    """The token ids of each label."""
    [answer] = _counted(client, questions, [prompt], choices=list(labels))
    found = (answer.detail or {}).get("choices")
    return found if isinstance(found, Mapping) else {}


def _counted(
    client: Client, questions: Questions, prompts: list[Prompt], **more: object
) -> Iterator[Answer]:
    fields = {name: questions.body[name] for name in KEPT if name in questions.body} | more
    job = client.submit(prompts, idempotency_key=None, mode="count", **fields)
    try:
        job.wait(math.inf, progress=False)
    except KeyboardInterrupt:
        job.cancel()
        raise
    return job.results()


def _parts(asked: Asked) -> Iterator[list[tuple[str, Sequence[Prompt]]]]:
    part: list[tuple[str, Sequence[Prompt]]] = []
    prompts = 0
    for row in asked:
        part.append(row)
        prompts += len(row[1])
        if prompts >= PART:
            yield part
            part, prompts = [], 0
    if part:
        yield part


def _round_up(width: float) -> int:
    """1, 2 or 5 times a power of ten, no less than `width`."""
    power = 10 ** math.floor(math.log10(max(width, 1)))
    return next(int(step * power) for step in (1, 2, 5, 10) if step * power >= max(width, 1))
