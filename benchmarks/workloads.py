"""The prompts of every cell, drawn from fixed seeds: the same for all contenders. No torch."""

from __future__ import annotations

import math
import random
from collections.abc import Callable

from benchmarks.protocol import Job, Workload

MEAN_IN, MEAN_OUT = 133, 58
MOST_IN, MOST_OUT = 512, 256
SPREAD = 0.8  #: sigma of the log-normal lengths
FIRST_TOKEN = 16  #: below are special tokens and pads


def mixed(count: int, vocabulary: int) -> Workload:
    """Log-normal lengths in and out, independent of each other, as a queue brings them."""
    draw = random.Random(7)  # noqa: S311
    inside = _lengths(draw, count, MEAN_IN, MOST_IN)
    outside = _lengths(draw, count, MEAN_OUT, MOST_OUT)
    jobs = [
        Job(_tokens(draw, length, vocabulary), tokens)
        for length, tokens in zip(inside, outside, strict=True)
    ]
    return Workload(f"mixed-{count}", tuple(jobs))


def shared(count: int, vocabulary: int) -> Workload:
    """One instruction of 400 tokens before 40 of each prompt's own, answers of 8."""
    draw = random.Random(11)  # noqa: S311
    instruction = _tokens(draw, 400, vocabulary)
    jobs = [Job(instruction + _tokens(draw, 40, vocabulary), 8) for _ in range(count)]
    return Workload(f"shared-{count}", tuple(jobs), shared=len(instruction))


def tail(count: int, vocabulary: int) -> Workload:
    """Every fiftieth row ten times as long as the others, in and out."""
    draw = random.Random(13)  # noqa: S311
    times = [10 if n % 50 == 25 else 1 for n in range(count)]
    jobs = [Job(_tokens(draw, 50 * long, vocabulary), 25 * long) for long in times]
    return Workload(f"tail-{count}", tuple(jobs))


def single(vocabulary: int) -> Workload:
    """One prompt alone."""
    draw = random.Random(17)  # noqa: S311
    return Workload("single", (Job(_tokens(draw, MEAN_IN, vocabulary), 64),))


def labels(
    count: int,
    vocabulary: int,
    encode: Callable[[str], list[int]],
    *,
    shared: int = 400,
    own: int = 40,
) -> Workload:
    """Which of eight labels of one to four tokens: the shared instruction before each prompt."""
    draw = random.Random(19)  # noqa: S311
    instruction = _tokens(draw, shared, vocabulary)
    texts = _label_texts(encode)
    choices = tuple(tuple(encode(text)) for text in texts)
    jobs = [Job(instruction + _tokens(draw, own, vocabulary), 1, choices) for _ in range(count)]
    return Workload(f"labels-{count}-{shared}", tuple(jobs), texts, shared=len(instruction))


def _label_texts(encode: Callable[[str], list[int]]) -> tuple[str, ...]:
    """Two of each length, none the beginning of another."""
    wanted = {length: 2 for length in (1, 2, 3, 4)}
    found: list[str] = []
    for word in WORDS:
        length = len(encode(word))
        clash = any(word.startswith(other) or other.startswith(word) for other in found)
        if wanted.get(length, 0) and not clash:
            wanted[length] -= 1
            found.append(word)
    if any(wanted.values()):
        raise ValueError(f"no words for labels of these lengths: {wanted}")
    return tuple(found)


WORDS = (
    *(
        "file",
        "text",
        "number",
        "date",
        "network",
        "thread",
        "format",
        "language",
        "value",
        "class",
    ),
    *("return", "object", "string", "module", "data formats", "running tasks", "file system"),
    *("the present date", "numbers and math", "a concurrent task", "a compressed file"),
    *("reading of a text file", "a network connection", "type of the object", "name of a module"),
    *("parse and print", "dates and times", "sum of two numbers", "list of all names"),
    *("a set of strings", "value of this key", "write to the file", "one of many things"),
)


def _lengths(draw: random.Random, count: int, mean: int, most: int) -> list[int]:
    """Log-normal, cut at `most`, scaled so that the mean of what remains is `mean`."""
    raw = [math.exp(draw.gauss(0.0, SPREAD)) for _ in range(max(count, 256))]
    low, high = 0.0, float(most)
    for _ in range(50):
        scale = (low + high) / 2
        total = sum(min(most, max(1, round(x * scale))) for x in raw)
        low, high = (scale, high) if total < mean * len(raw) else (low, scale)
    return [min(most, max(1, round(x * scale))) for x in raw[:count]]


def _tokens(draw: random.Random, length: int, vocabulary: int) -> tuple[int, ...]:
    return tuple(draw.randrange(FIRST_TOKEN, vocabulary) for _ in range(length))
