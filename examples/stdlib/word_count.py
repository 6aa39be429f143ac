"""Another annotator for the same table: logistic regression on words and word pairs.

Knows rows and scikit-learn; nothing of prompts or of language models.
"""

import csv
import sys
from collections.abc import Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Annotated

import typer

from examples.stdlib.extract import Row, extract, part_of

COLUMN = "word_count"  # as `topics.toml` calls it among its votes


def guesses(train: Sequence[Row], rows: Sequence[Row]) -> list[str]:
    """The topics of `rows`, after reading those of `train`."""
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    words = make_pipeline(
        TfidfVectorizer(sublinear_tf=True, ngram_range=(1, 2)),
        LogisticRegression(C=20, max_iter=2000),
    )
    words.fit([_text(row) for row in train], [row.topic for row in train])
    return [str(guess) for guess in words.predict([_text(row) for row in rows])]


def _text(row: Row) -> str:
    return f"{row.signature}\n{row.docstring}"


def write_heldout(path: Path, most: int | None = None) -> int:
    """The held-out rows as CSV, or `most` of them spread evenly over all, with the guess of an
    annotator that read the others. Returns their number."""
    train = [row for row in extract() if part_of(row.docstring) == "train"]
    heldout = [row for row in extract() if part_of(row.docstring) == "heldout"]
    count = min(most or len(heldout), len(heldout))
    rows = [heldout[number * len(heldout) // count] for number in range(count)]
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, [*(field.name for field in fields(Row)), COLUMN])
        writer.writeheader()
        for row, guess in zip(rows, guesses(train, rows), strict=True):
            writer.writerow({**asdict(row), COLUMN: guess})
    return count


def main(
    output: Annotated[Path, typer.Option(help="CSV file to write.")],
    rows: Annotated[int | None, typer.Option(min=10, help="At most so many rows.")] = None,
) -> None:
    """Write the held-out rows with the word count's guess beside each."""
    typer.echo(f"{write_heldout(output, rows)} rows written to {output}", file=sys.stderr)


if __name__ == "__main__":
    typer.run(main)
