"""Trains penstock-tiny, a chat model of the standard library's documentation, from nothing.

Sees the training rows alone; how good the result is, is `evaluate`'s matter.
"""

import json
import math
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import torch
import typer
from torch import Tensor, nn
from torch.nn import functional
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from examples.stdlib.corpus import Corpus, Example
from examples.stdlib.extract import Row, extract, grouped_part_of, part_of
from examples.stdlib.model import Dropout, new_model, save
from examples.stdlib.prompts import SMALL_TALK, SUMMARY_QUESTIONS, topic_prompt
from examples.stdlib.tokenizer import learn

PAD_ID = 0
LOG_EVERY = 50  # steps


class Split(StrEnum):
    """By docstring, or with everything of one class or module's functions on one side."""

    hash = "hash"
    grouped = "grouped"


@dataclass(frozen=True)
class Recipe:
    """One training run; the defaults are those of the shipped model."""

    steps: int = 1100
    seed: int = 7
    peak_rate: float = 2e-3
    last_rate: float = 0.02  # of the peak
    warmup: int = 100  # steps
    weight_decay: float = 0.1
    topics: int = 16  # conversations a step
    summaries: int = 96  # conversations a step
    prompt_loss: float = 0.2  # weight of the language-model loss on the topic prompts
    dropout: float = 0.1  # in topic batches only: summaries are to be learned by heart
    save_every: int = 250  # steps


@dataclass(frozen=True)
class Progress:
    """What one step did: its two losses and the tokens it read."""

    topic: float
    summary: float
    tokens: int


def training_rows(split: Split) -> list[Row]:
    """The rows that the model may see."""
    if split is Split.hash:
        return [row for row in extract() if part_of(row.docstring) == "train"]
    return [row for row in extract() if grouped_part_of(row) == "train"]


def learn_tokenizer(rows: Sequence[Row]) -> PreTrainedTokenizerFast:
    """The tokenizer of these rows' prompts, questions and answers."""
    texts = [text for row in rows for text in (topic_prompt(row), f"{row.name} {row.summary}")]
    return learn([*texts, *SUMMARY_QUESTIONS, *(text for pair in SMALL_TALK for text in pair)])


def batch_loss(model: LlamaForCausalLM, batch: Sequence[Example], prompt_loss: float) -> Tensor:
    """Mean loss on the answers, plus the weighted mean loss on the prompts.

    Padded on the right without a mask: attention is causal, so no real token sees a pad.
    """
    width = max(len(example.tokens) for example in batch)
    tokens = torch.full((len(batch), width), PAD_ID)  # [B, T]
    answer = torch.zeros(len(batch), width, dtype=torch.bool)  # [B, T]
    for row, example in enumerate(batch):
        tokens[row, : len(example.tokens)] = torch.tensor(example.tokens)
        answer[row, : len(example.tokens)] = torch.tensor(example.answer)
    hidden = model.model(input_ids=tokens, use_cache=False).last_hidden_state[:, :-1]  # [B, T-1, H]
    target, answer = tokens[:, 1:], answer[:, 1:]
    loss = functional.cross_entropy(model.lm_head(hidden[answer]), target[answer])
    if prompt_loss:
        prompt = (target != PAD_ID) & ~answer
        loss = loss + prompt_loss * functional.cross_entropy(
            model.lm_head(hidden[prompt]), target[prompt]
        )
    return loss


def _buckets(batch: list[Example], size: int) -> list[list[Example]]:
    """Cut by length, so that little of a batch is padding."""
    ordered = sorted(batch, key=lambda example: len(example.tokens))
    return [ordered[start : start + size] for start in range(0, len(ordered), size)]


def _rate(step: int, recipe: Recipe) -> float:
    """The learning rate as a share of its peak: a warm-up, then half a cosine."""
    if step < recipe.warmup:
        return (step + 1) / recipe.warmup
    done = (step - recipe.warmup) / max(1, recipe.steps - recipe.warmup)
    return recipe.last_rate + (1 - recipe.last_rate) * 0.5 * (1 + math.cos(math.pi * done))


class Trainer:
    """A model with its optimizer, taken one step at a time."""

    def __init__(self, model: LlamaForCausalLM, corpus: Corpus, recipe: Recipe) -> None:
        self._model, self._corpus, self._recipe = model, corpus, recipe
        self._dropout = Dropout(model)
        self._optimizer = torch.optim.AdamW(
            model.parameters(),
            lr=recipe.peak_rate,
            betas=(0.9, 0.98),
            weight_decay=recipe.weight_decay,
        )
        self._schedule = torch.optim.lr_scheduler.LambdaLR(
            self._optimizer, lambda step: _rate(step, recipe)
        )

    def step(self) -> Progress:
        """Draw both tasks' conversations, accumulate their gradients, and move once."""
        topics = self._corpus.topics(self._recipe.topics)
        summaries = self._corpus.summaries(self._recipe.summaries)
        self._dropout.rate = self._recipe.dropout
        topic = self._accumulate(_buckets(topics, 16), self._recipe.prompt_loss)
        self._dropout.rate = 0.0
        summary = self._accumulate(_buckets(summaries, 48), 0.0)
        nn.utils.clip_grad_norm_(self._model.parameters(), 1.0)
        self._optimizer.step()
        self._schedule.step()
        self._optimizer.zero_grad(set_to_none=True)
        tokens = sum(len(example.tokens) for example in [*topics, *summaries])
        return Progress(topic, summary, tokens)

    def _accumulate(self, batches: list[list[Example]], prompt_loss: float) -> float:
        total = 0.0
        for batch in batches:
            with torch.autocast("cpu", torch.bfloat16):  # twice as fast as fp32
                loss = batch_loss(self._model, batch, prompt_loss) / len(batches)
            torch.autograd.backward(loss)
            total += loss.item()
        return total


def train(output: Path, split: Split, recipe: Recipe) -> None:
    """Train and save to `output`, also every `save_every` steps; the log goes to stderr as JSON."""
    torch.manual_seed(recipe.seed)
    rows = training_rows(split)
    tokenizer = learn_tokenizer(rows)
    model = new_model(tokenizer)
    trainer = Trainer(model, Corpus(rows, tokenizer, recipe.seed), recipe)
    started, tokens = time.monotonic(), 0
    for step in range(1, recipe.steps + 1):
        progress = trainer.step()
        tokens += progress.tokens
        if step % LOG_EVERY == 0 or step == recipe.steps:
            seconds = round(time.monotonic() - started, 1)
            log = {"step": step, "seconds": seconds, **asdict(progress), "tokens": tokens}
            typer.echo(json.dumps(log), file=sys.stderr)
        if step % recipe.save_every == 0 or step == recipe.steps:
            save(model, tokenizer, output)


def main(
    output: Annotated[Path, typer.Option(help="Folder for the model.")],
    split: Annotated[Split, typer.Option(help="What is held out.")] = Split.hash,
    steps: Annotated[int, typer.Option(help="Optimizer steps.")] = Recipe.steps,
    seed: Annotated[int, typer.Option(help="Seed of everything.")] = Recipe.seed,
) -> None:
    """Train the tiny model."""
    train(output, split, Recipe(steps=steps, seed=seed))


if __name__ == "__main__":
    typer.run(main)
