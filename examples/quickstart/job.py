"""Ask one question about many texts and read the answers as they finish.

penstock up                                   # in another terminal
python -m examples.quickstart.job             # or: … job http://host:port
"""

import sys

from penstock import Client

REVIEWS = [
    "Arrived early and works perfectly.",
    "Broke after two days.",
    "",  # fails alone, with its reason; the others run
]


def main(url: str = "http://127.0.0.1:8000") -> None:
    """Print an answer, or the reason why there is none, for each review."""
    with Client(url) as client:
        job = client.submit(
            [f"Is this review positive or negative?\n{text}" if text else "" for text in REVIEWS],
            max_tokens=8,
            temperature=0,
        )
        print(f"{job.id} is stored; nothing can get lost now.")
        for answer in job.as_finished(timeout=600):
            print(answer.index, answer.text if answer.text is not None else answer.message)
        done = job.status().progress
        print(f"{done.completed} answered, {done.failed} failed")


if __name__ == "__main__":
    main(*sys.argv[1:2])
