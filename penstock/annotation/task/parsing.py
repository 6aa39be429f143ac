"""The templates of a task, parsed: which names are told beside the columns. Renders nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

from penstock.annotation.task.template import Template

if TYPE_CHECKING:
    from penstock.annotation.task.task import Task


def template_of(task: Task, text: str) -> Template:
    """Raises InvalidRequest. `labels` is a column where a task has none, `label` likewise."""
    if task.labels is None:
        return Template.parse(text)
    return Template.parse(
        text, ("labels", "label") if task.several and task.scored else ("labels",)
    )
