"""Do labels begin with the same token? Asked of the model itself, before a run. Stores nothing."""

from __future__ import annotations

from collections.abc import Mapping

from penstock.annotation.records import Questions, Watcher
from penstock.annotation.task.checks import shared_first_tokens, shared_sentence
from penstock.client import Client
from penstock.errors import PenstockError

LIMIT = 5.0  # seconds that a worker is waited for


def note_shared_tokens(
    client: Client, questions: Mapping[str, Questions], labels: tuple[str, ...], watcher: Watcher
) -> None:
    """Say which labels begin alike, once for each model. A worker that does not answer in time, or
    a service that cannot count, delays nothing."""
    models = {each.body.get("model") for each in questions.values()}
    for model in sorted(models, key=str):
        try:
            job = client.submit([labels[0]], mode="count", choices=list(labels), model=model)
            [answer] = job.answers(LIMIT, progress=False)
        except (PenstockError, TimeoutError):
            continue
        told = (answer.detail or {}).get("choices")
        if isinstance(told, Mapping) and (pairs := shared_first_tokens(told)):
            watcher.note(shared_sentence(pairs))
