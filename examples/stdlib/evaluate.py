"""Measures penstock-tiny beside two baselines, and writes the figures that its model card cites.

Answers are decoded greedily by plain transformers; nothing here knows how the model was trained.
"""

import json
import platform
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from sklearn.metrics import accuracy_score, confusion_matrix, f1_score

from examples.stdlib.answers import Answerer
from examples.stdlib.extract import Row, extract, grouped_part_of, part_of
from examples.stdlib.prompts import SUMMARY_QUESTIONS, summary_prompt, topic_prompt
from examples.stdlib.topics import LABELS
from examples.stdlib.word_count import guesses

TOPIC_TOKENS = 8
SUMMARY_TOKENS = 64
PHRASING_ROWS = 10  # every so many-th training row is asked in all phrasings

Figures = dict[str, Any]


def split_rows(split: str) -> tuple[list[Row], list[Row]]:
    """Training and held-out rows of the split `hash` or `grouped`."""
    train: list[Row] = []
    heldout: list[Row] = []
    for row in extract():
        part = part_of(row.docstring) if split == "hash" else grouped_part_of(row)
        (train if part == "train" else heldout).append(row)
    return train, heldout


def topic_figures(model: Answerer, rows: Sequence[Row]) -> Figures:
    """Accuracy, macro F1 and confusion; an answer that is no label counts as wrong."""
    return _scores(rows, model.answer([topic_prompt(row) for row in rows], TOPIC_TOKENS))


def _scores(rows: Sequence[Row], answers: Sequence[str]) -> Figures:
    gold = [row.topic for row in rows]
    return {
        "rows": len(rows),
        "accuracy": round(float(accuracy_score(gold, answers)), 4),
        "macro_f1": round(
            float(f1_score(gold, answers, labels=list(LABELS), average="macro", zero_division=0)), 4
        ),
        "no_label": sum(answer not in LABELS for answer in answers),
        "confusion": confusion_matrix(gold, answers, labels=list(LABELS)).tolist(),
    }


def baseline_figures(train: Sequence[Row], heldout: Sequence[Row]) -> Figures:
    """Always the commonest topic, and logistic regression on the words of the same text."""
    commonest = Counter(row.topic for row in train).most_common(1)[0][0]
    return {
        "majority": _scores(heldout, [commonest] * len(heldout)),
        "word_count": _scores(heldout, guesses(train, heldout)),
    }


def summary_figures(model: Answerer, train: Sequence[Row], heldout: Sequence[Row]) -> Figures:
    """Exact answers and mean token F1: every name trained on, all phrasings, and unknown names."""
    sample = list(train)[::PHRASING_ROWS]
    phrasings = dict.fromkeys(SUMMARY_QUESTIONS)
    return {
        "train": _closeness(model, train, [summary_prompt(row.name) for row in train]),
        "train_by_phrasing": {
            text: _closeness(model, sample, [text.format(name=row.name) for row in sample])
            for text in phrasings
        },
        "heldout": _closeness(model, heldout, [summary_prompt(row.name) for row in heldout]),
    }


def _closeness(model: Answerer, rows: Sequence[Row], prompts: Sequence[str]) -> Figures:
    answers = model.answer(prompts, SUMMARY_TOKENS)
    pairs = [(answer, row.summary) for answer, row in zip(answers, rows, strict=True)]
    return {
        "rows": len(rows),
        "exact": round(sum(answer == summary for answer, summary in pairs) / len(pairs), 4),
        "token_f1": round(sum(token_f1(*pair) for pair in pairs) / len(pairs), 4),
    }


def token_f1(answer: str, truth: str) -> float:
    """Harmonic mean of precision and recall over the words of both texts, as SQuAD counts it."""
    given, wanted = answer.lower().split(), truth.lower().split()
    common = sum((Counter(given) & Counter(wanted)).values())
    return 2 * common / (len(given) + len(wanted)) if common else 0.0


def main(
    model: Annotated[Path, typer.Option(help="Folder of the model.")],
    output: Annotated[Path, typer.Option(help="JSON file to write.")],
    grouped_model: Annotated[
        Path | None, typer.Option(help="Folder of a model trained with --split grouped.")
    ] = None,
) -> None:
    """Measure the model and its baselines."""
    train, heldout = split_rows("hash")
    grouped_train, grouped_heldout = split_rows("grouped")
    answerer = Answerer(model)
    figures: Figures = {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "labels": list(LABELS),
        "hash": {
            "train_rows": len(train),
            "model": topic_figures(answerer, heldout),
            **baseline_figures(train, heldout),
        },
        "grouped": {
            "train_rows": len(grouped_train),
            **baseline_figures(grouped_train, grouped_heldout),
        },
        "summaries": summary_figures(answerer, train, heldout),
    }
    if grouped_model is not None:
        figures["grouped"]["model"] = topic_figures(Answerer(grouped_model), grouped_heldout)
    output.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    typer.echo(json.dumps(figures["hash"]["model"] | {"confusion": "..."}))


if __name__ == "__main__":
    typer.run(main)
