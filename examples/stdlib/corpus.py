"""Training conversations drawn from the training rows: topics with altered texts, and summaries.

Knows prompts and the tokenizer; knows no model and never sees a held-out row.
"""

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from transformers import PreTrainedTokenizerFast

from examples.stdlib.extract import Row
from examples.stdlib.prompts import (
    SMALL_TALK,
    SUMMARY_QUESTIONS,
    SYSTEM_PROMPTS,
    topic_text,
)

Turn = tuple[str, str]  # role, content

# Shares of the conversations drawn.
ALTERED = 0.7  # topic questions with words dropped
CROPPED = 0.5  # of those, with a window of the docstring only
UNSIGNED = 0.15  # topic questions without the signature
TALK, CHAINED, SYSTEM = 0.02, 0.05, 0.05  # small talk; two questions in one chat; a system prompt
BARE = 0.1  # summary questions that name `copytree` for shutil.copytree, where only one is so named
DROP_RATES = (0.0, 0.1, 0.2, 0.3)  # of words

CROP_FROM, CROP_TO = 12, 8  # words a docstring must have, and the least that is left
MIN_BARE = 4  # characters that a bare name must exceed


@dataclass(frozen=True)
class Example:
    """One conversation as tokens; `answer[i]` says whether token i is the assistant's."""

    tokens: list[int]
    answer: list[bool]


class Corpus:
    """An endless, seeded source of examples of the two tasks."""

    def __init__(self, rows: Sequence[Row], tokenizer: PreTrainedTokenizerFast, seed: int) -> None:
        self._rows = rows
        self._tokenizer = tokenizer
        self._random = random.Random(seed)  # noqa: S311 - nothing secret
        bare = Counter(_bare(row) for row in rows)
        self._unique = {name for name, count in bare.items() if count == 1 and len(name) > MIN_BARE}
        self._topic_deck: list[Row] = []
        self._summary_deck: list[Row] = []

    def topics(self, count: int) -> list[Example]:
        """Topic questions; most texts are altered so that no docstring is learned by heart."""
        return [self._topic(row) for row in self._draw(self._topic_deck, count)]

    def summaries(self, count: int) -> list[Example]:
        """Summary questions in several phrasings, now and then small talk or two in one chat."""
        rows = self._draw(self._summary_deck, count)
        return [self._summary(row) for row in rows]

    def _draw(self, deck: list[Row], count: int) -> list[Row]:
        while len(deck) < count:
            deck[:0] = self._random.sample(self._rows, len(self._rows))
        drawn = deck[-count:]
        del deck[-count:]
        return drawn

    def _topic(self, row: Row) -> Example:
        signature, docstring = row.signature, row.docstring
        if self._random.random() < ALTERED:
            docstring = self._altered(docstring)
        if self._random.random() < UNSIGNED:
            signature = "(...)"
        return self.encode([("user", topic_text(signature, docstring)), ("assistant", row.topic)])

    def _altered(self, text: str) -> str:
        words = text.split()
        if len(words) > CROP_FROM and self._random.random() < CROPPED:
            length = self._random.randint(CROP_TO, len(words))
            start = self._random.randint(0, len(words) - length)
            words = words[start : start + length]
        rate = self._random.choice(DROP_RATES)
        return " ".join(word for word in words if self._random.random() >= rate) or text

    def _summary(self, row: Row) -> Example:
        chance = self._random.random()
        if chance < TALK:
            question, answer = self._random.choice(SMALL_TALK)
            return self.encode([("user", question), ("assistant", answer)])
        turns = self._ask(row)
        if chance < TALK + CHAINED:
            turns = self._ask(self._random.choice(self._rows)) + turns
        elif chance < TALK + CHAINED + SYSTEM:
            turns.insert(0, ("system", self._random.choice(SYSTEM_PROMPTS)))
        return self.encode(turns)

    def _ask(self, row: Row) -> list[Turn]:
        name = row.name
        if _bare(row) in self._unique and self._random.random() < BARE:
            name = _bare(row)
        question = self._random.choice(SUMMARY_QUESTIONS).format(name=name)
        return [("user", question), ("assistant", row.summary)]

    def encode(self, turns: Sequence[Turn]) -> Example:
        """The tokens that the chat template gives, answers marked (their end token included)."""
        tokens: list[int] = []
        answer: list[bool] = []
        for role, content in turns:
            marker = self._ids(f"<|{role}|>")
            body = self._ids(f"{content.strip()}<|end|>")
            tokens += marker + body
            answer += [False] * len(marker) + [role == "assistant"] * len(body)
        return Example(tokens, answer)

    def _ids(self, text: str) -> list[int]:
        ids: list[int] = self._tokenizer.encode(text, add_special_tokens=False)
        return ids


def _bare(row: Row) -> str:
    return row.name.rpartition(".")[2]
