"""What is asked: random words of log-normal length, or the lines of a file, over and over."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path

from penstock.errors import InvalidRequest

MAX_FILE_BYTES = 100_000_000
LONGEST = 8  # times the mean: the tail of the distribution is cut there
WORDS = (
    "river stone window letter garden winter signal paper mountain engine silver question harbor "
    "morning bridge copper shadow market forest pencil thunder island mirror candle valley circle"
)


@dataclass(frozen=True, slots=True)
class Prompt:
    """`max_tokens`: of its answer."""

    text: str
    max_tokens: int


@dataclass(frozen=True, slots=True)
class Lengths:
    """Means, and the spread (sigma of the logarithm) around them; 0: all the same."""

    words: int = 100
    max_tokens: int = 128
    spread: float = 0.6

    def check(self) -> None:
        """Raises InvalidRequest that names the option."""
        if not 1 <= self.words <= 1_000_000:
            raise InvalidRequest("--prompt-words has to be from 1 to 1,000,000.", param="words")
        if not 1 <= self.max_tokens <= 100_000:
            raise InvalidRequest("--max-tokens has to be from 1 to 100,000.", param="max_tokens")
        if not 0 <= self.spread <= 2:
            raise InvalidRequest("--spread has to be from 0 to 2.", param="spread")


def drawn(lengths: Lengths, seed: int) -> Iterator[Prompt]:
    """Prompts without end. The same seed gives the same ones; no two begin alike, so that no
    server's cache answers for its engine."""
    chance = random.Random(seed)  # noqa: S311
    words = WORDS.split()
    while True:
        count = _length(chance, lengths.words, lengths.spread)
        text = " ".join(chance.choices(words, k=count))
        number = chance.getrandbits(32)
        yield Prompt(
            f"{number}: continue this list of words: {text}",
            _length(chance, lengths.max_tokens, lengths.spread),
        )


def of_file(path: Path, lengths: Lengths, seed: int) -> Iterator[Prompt]:
    """The lines of a text file, or the texts of a `.jsonl` file (strings, or objects with a
    `prompt`), in order and without end. Raises InvalidRequest."""
    if path.stat().st_size > MAX_FILE_BYTES:
        raise InvalidRequest(f"{path} has more than {MAX_FILE_BYTES:,} bytes.", param="prompts")
    read = _json_text if path.suffix in {".jsonl", ".ndjson"} else str
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
        texts = [read(line) for line in lines if line.strip()]
    except (ValueError, KeyError, TypeError):
        raise InvalidRequest(f"{path} is no file of prompts.", param="prompts") from None
    if not texts:
        raise InvalidRequest(f"{path} has no prompts.", param="prompts")
    chance = random.Random(seed)  # noqa: S311
    limits = iter(lambda: _length(chance, lengths.max_tokens, lengths.spread), 0)
    return (Prompt(text, limit) for text, limit in zip(cycle(texts), limits, strict=False))


def _json_text(line: str) -> str:
    value = json.loads(line)
    text = value["prompt"] if isinstance(value, dict) else value
    if not isinstance(text, str):
        raise TypeError
    return text


def _length(chance: random.Random, mean: int, spread: float) -> int:
    # exp(mu + sigma²/2) is the mean of a log-normal distribution.
    drawn = chance.lognormvariate(math.log(mean) - spread**2 / 2, spread)
    return max(1, min(round(drawn), LONGEST * mean))
