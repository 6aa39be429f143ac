"""Ask one question about many texts and read the answers in order.

penstock up                                   # in another terminal
python -m examples.quickstart.annotate        # or: … annotate http://host:port
"""

import sys

from penstock.client import DEFAULT_URL, Penstock

REVIEWS = [
    "Arrived early and works perfectly.",
    "Broke after two days.",
    "",  # fails alone, with its reason; the others run
]


def main(url: str) -> None:
    """Print an answer, or the reason why there is none, for each review."""
    with Penstock(url) as client:
        job = client.batch_generate(
            [f"Is this review positive or negative?\n{text}" if text else "" for text in REVIEWS],
            max_tokens=8,
            temperature=0,
        )
        print(f"{job.id} is stored; nothing can get lost now.")  # noqa: T201
        job.wait(timeout=600)
        for answer in job.results():
            print(answer.index, answer.text if answer.text is not None else answer.message)  # noqa: T201


if __name__ == "__main__":
    main(*(sys.argv[1:2] or [DEFAULT_URL]))
