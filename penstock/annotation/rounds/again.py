"""One more run over a table or a part of it, and what every new round begins with.

Knows what a round needs of a run; posts nothing itself.
"""

from __future__ import annotations

from collections.abc import Iterable

from penstock.annotation.records import Source
from penstock.annotation.rounds.cells import Answers
from penstock.annotation.rounds.manifest import Counts
from penstock.annotation.task.task import Task
from penstock.annotation.trust.right import missing, right
from penstock.client import Client, Job
from penstock.client.body import Message


class Computing(Client):
    """The service of another client, which has every prompt computed: an answer that is kept
    proves nothing of a model that is asked again."""

    def __init__(self, client: Client) -> None:
        self._calls = client._calls

    def submit(
        self, messages: Iterable[Message], *, idempotency_key: str | None = None, **fields: object
    ) -> Job:
        fields["use_cache"] = False
        return super().submit(messages, idempotency_key=idempotency_key, **fields)


def counts_of(source: Source, task: Task) -> Counts:
    """What became of the rows of an annotated table, counted from its cells."""
    answers = Answers(task)
    rows = failed = review = gold = good = 0
    for record in source.read():
        rows += 1
        failed += bool(answers.error(record.row))
        review += answers.review(record.row)
        wanted = record.row.get(task.gold) if task.gold else None
        if not missing(wanted):
            gold += 1
            good += right(answers.value(record.row), wanted, task.kind)
    return Counts(rows=rows, failed=failed, review=review, gold=gold, right=good)
