"""A job from a CSV file: a prompt for each row, the answer beside it in a new file.

The rows are streamed to the service and the answers back, so that a table of any size needs no
more memory than this one. (`penstock annotate` does it without a program, and picks up an
interrupted run.)

python -m examples.quickstart.table           # or: … table http://host:port IN.csv OUT.csv
"""

import csv
import sys
from collections.abc import Iterator
from pathlib import Path

from penstock import Client

REVIEWS = Path(__file__).with_name("reviews.csv")


def prompts(table: Path) -> Iterator[str]:
    """One for each row."""
    with table.open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            yield f"Is this review of a {row['product']} good or bad?\n{row['review']}"


def main(
    url: str = "http://127.0.0.1:8000", table: str = str(REVIEWS), output: str = "answers.csv"
) -> None:
    """Write `output`, and print what came out."""
    with Client(url) as client:
        job = client.submit(prompts(Path(table)), choices=["good", "bad"], mode="score")
        end = job.wait(timeout=3_600)  # with a progress bar at a terminal
        with (
            Path(table).open(newline="", encoding="utf-8") as rows,
            Path(output).open("w", newline="", encoding="utf-8") as answers,
        ):
            reader = csv.DictReader(rows)
            writer = csv.DictWriter(answers, [*(reader.fieldnames or ()), "answer", "error"])
            writer.writeheader()
            for row, answer in zip(reader, job.results(), strict=True):
                writer.writerow({**row, "answer": answer.text, "error": answer.message})
    print(f"{end.progress.completed} rows answered, {end.progress.failed} failed: {output}")


if __name__ == "__main__":
    main(*sys.argv[1:4])
