"""All that can be known of a run before it: the table, the tokens, the time. Shows nothing."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from penstock.annotation.lint.lengths import Lengths, count_tokens, label_tokens, tokens_of
from penstock.annotation.lint.measure import Prediction, measure, predict
from penstock.annotation.lint.survey import Drawn, Survey, survey
from penstock.annotation.records import Count, Prompt, Questions, Source
from penstock.annotation.task.checks import shared_first_tokens, shared_sentence, told_gold
from penstock.annotation.task.questions import voters
from penstock.annotation.task.task import Task
from penstock.client import Client
from penstock.errors import InvalidRequest
from penstock.schemas.health import ModelStats

SAMPLES = 3  # prompts that are shown
FEWEST = 12  # rows below which measuring would be the run itself


@dataclass(frozen=True, slots=True)
class Options:
    """`rows`: of which tokens are counted, drawn at random; None: of all."""

    rows: int | None = None
    measure: bool = True


@dataclass(frozen=True, slots=True)
class Findings:
    """What is known. `voters`: how many are asked; `prefix`: tokens that all prompts begin with,
    which the service reads once where they are `least` or more (None: it does not say, 0: never);
    `prediction` is None where nothing was measured."""

    survey: Survey
    lengths: Lengths
    voters: int
    samples: Sequence[Drawn]
    prefix: int | None
    prediction: Prediction | None
    notes: Sequence[str] = field(default=())
    least: int | None = None

    @property
    def sound(self) -> bool:
        """The run would begin."""
        return not self.survey.wrong


def lint(
    source: Source, task: Task, client: Client, options: Options, reading: Count, counting: Count
) -> Findings:
    """Look at it all; the run itself is not begun. `reading` and `counting` are told rows."""
    asked = [voter.questions for voter in voters(task) if voter.questions is not None]
    first = asked[0]
    found = survey(source, task, first, reading)
    model = client.stats().model
    lengths = Lengths(context=model.context)
    if not found.drawn:
        return Findings(found, lengths, len(asked), (), None, None)
    notes = [*told_gold(task), *_labels(client, task, first, found.drawn[0].prompts[0], lengths)]
    rows = _rows(source, first, found, options.rows, task.sampling.seed)
    count_tokens(client, first, rows, lengths, counting)
    shared = found.prefix.prompt
    prefix = None if shared is None or found.sound < 2 else tokens_of(client, first, shared)
    prediction = None
    if options.measure and found.sound >= FEWEST:
        jobs = [measure(client, each, _of_voter(each, found.drawn)) for each in asked]
        prediction = predict(jobs, found.sound, lengths.mean, lengths.spread)
    return Findings(
        found,
        lengths,
        len(asked),
        found.drawn[:SAMPLES],
        prefix,
        prediction,
        notes,
        least=_least(model),
    )


def _least(model: ModelStats) -> int | None:
    """Tokens of a beginning from which on it is shared. Micro-batches share nothing."""
    return 0 if model.runner == "padded" else model.min_prefix


def _labels(
    client: Client, task: Task, questions: Questions, prompt: Prompt, lengths: Lengths
) -> list[str]:
    """What is to be said of the labels' tokens. Notes the room that an answer takes."""
    lengths.room = 0 if task.scored else task.sampling.max_tokens
    if task.labels is None:
        return []
    tokens = label_tokens(client, questions, prompt, task.labels)
    if not tokens:
        return []
    if not task.several:
        lengths.room = max(map(len, tokens.values()))
    pairs = shared_first_tokens(tokens)
    return [shared_sentence(pairs)] if pairs else []


def _rows(
    source: Source, questions: Questions, found: Survey, rows: int | None, seed: int
) -> Iterator[tuple[str, Sequence[Prompt]]]:
    """The rows whose tokens are counted, in order; those with mistakes are left out."""
    chosen = None
    if rows is not None and rows < found.rows:
        numbers = random.Random(seed).sample(range(found.rows), rows)  # noqa: S311
        chosen = frozenset(numbers)
    for record in source.read():
        if chosen is not None and record.number not in chosen:
            continue
        try:
            yield record.place, questions.ask(record.row)
        except InvalidRequest:
            continue


def _of_voter(questions: Questions, drawn: Sequence[Drawn]) -> list[Drawn]:
    """The same rows as another voter is asked about them."""
    return [Drawn(row.place, row.record, questions.ask(row.record.row)) for row in drawn]
