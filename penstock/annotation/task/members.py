"""Who is asked in a task with votes: a name for each template, model and sample. Asks nothing."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from penstock.annotation.task.task import Task


@dataclass(frozen=True, slots=True)
class Member:
    """One job: its template, model, and how many samples were drawn before."""

    name: str
    template: str
    model: str | None
    sample: int


def members(task: Task) -> tuple[Member, ...]:
    """Those that are asked, in order; the first is the task's own template and model."""
    votes = task.votes
    templates = (task.template, *votes.templates)
    models = (task.model, *votes.models)
    found: dict[str, Member] = {}
    for place, template in enumerate(templates, 1):
        for model in models:
            for sample in range(votes.samples):
                parts = [
                    f"template{place}" if len(templates) > 1 else "",
                    _plain(model or "model") if len(models) > 1 else "",
                    f"sample{sample + 1}" if votes.samples > 1 else "",
                ]
                name = _free("_".join(filter(None, parts)) or _plain(task.model or "model"), found)
                found[name] = Member(name, template, model, sample)
    return tuple(found.values())


def _plain(name: str) -> str:
    return re.sub(r"[^\w.-]+", "_", name)


def _free(name: str, taken: dict[str, Member]) -> str:
    number = 1
    while (free := name if number == 1 else f"{name}_{number}") in taken:
        number += 1
    return free
