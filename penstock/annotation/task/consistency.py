"""What of a task contradicts itself, seen without a table. Pydantic has checked each key alone."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from penstock.annotation.records import Kind
from penstock.annotation.task.fields import check_schema
from penstock.annotation.task.parsing import template_of
from penstock.annotation.task.template import Template
from penstock.errors import InvalidRequest

if TYPE_CHECKING:
    from penstock.annotation.task.task import Task


def check(task: Task) -> None:
    """Raises InvalidRequest for the first thing that is wrong; `param` is its key."""
    _check_output(task)
    _check_votes(task)
    for place, text in enumerate((task.template, *task.votes.templates)):
        key = f"votes.templates.{place - 1}" if place else "template"
        _check_examples(task, _parsed(task, text, key))
    twice = [name for name, count in Counter(c.name for c in task.columns).items() if count > 1]
    if twice:
        raise InvalidRequest(
            f"`fields` has a property {twice[0]!r}, which is the name of another column that is "
            "added; call it otherwise.",
            param=f"fields.properties.{twice[0]}",
        )


def _check_output(task: Task) -> None:
    given = [task.labels is not None, task.fields is not None, task.text]
    if sum(given) != 1:
        what = "needs" if not any(given) else "has more than"
        raise InvalidRequest(
            f"The task {what} one of `labels`, `fields` and `text = true`.", param="labels"
        )
    if task.labels is not None and len(set(task.labels)) < len(task.labels):
        twice = next(label for label in task.labels if task.labels.count(label) > 1)
        raise InvalidRequest(f"`labels` has {twice!r} twice.", param="labels")
    if task.fields is not None:
        check_schema(task.fields)
    for key in ("several", "length_normalized", "content_free", "all_probabilities"):
        if getattr(task, key) and (task.labels is None or (key != "several" and not task.scored)):
            needs = "labels" if key == "several" else "labels that are scored"
            raise InvalidRequest(f"`{key}` needs {needs}.", param=key)
    if task.review.below is not None and not task.scored:
        raise InvalidRequest(
            "`review.below` needs probabilities, which only labels by scoring have.",
            param="review.below",
        )


def _check_votes(task: Task) -> None:
    votes = task.votes
    for key in ("templates", "models", "columns"):
        names: tuple[str, ...] = getattr(votes, key)
        own = {"templates": task.template, "models": task.model}.get(key)
        if len({*names, own}) <= len(names):
            raise InvalidRequest(f"`votes.{key}` names one twice.", param=f"votes.{key}")
    if votes.samples > 1 and (task.scored or task.sampling.temperature == 0):
        need = 'mode = "decode" and ' if task.scored else ""
        raise InvalidRequest(
            f"`votes.samples` needs {need}a `sampling.temperature` above 0: without chance all "
            "samples are the same.",
            param="votes.samples",
        )
    if votes.columns and task.kind is not Kind.LABELS:
        raise InvalidRequest("`votes.columns` needs labels.", param="votes.columns")
    if task.gold in votes.columns:
        raise InvalidRequest(
            f"`votes.columns` names {task.gold!r}, which is the gold column.", param="votes.columns"
        )
    if task.kind is Kind.TEXT and len(task.members) > 1:
        raise InvalidRequest(
            "`votes` needs labels or fields: texts have no majority.", param="votes"
        )


def _parsed(task: Task, text: str, key: str) -> Template:
    try:
        template = template_of(task, text)
    except InvalidRequest as error:
        where = "" if key == "template" else f"`{key}`: "
        raise InvalidRequest(where + error.message, param=key) from None
    if not template.columns:
        raise InvalidRequest(
            f"`{key}` names no column, so all rows would ask the same; write "
            "{{ column }} where a cell belongs.",
            param=key,
        )
    return template


def _check_examples(task: Task, template: Template) -> None:
    for place, example in enumerate(task.examples):
        where = f"examples.{place}"
        for name in template.columns:
            if name not in example.columns:
                raise InvalidRequest(
                    f"`{where}.columns` has no {name!r}, which the template names.",
                    param=f"{where}.columns",
                )
        reason = _wrong_answer(task, example.answer)
        if reason is not None:
            raise InvalidRequest(f"`{where}.answer` {reason}.", param=f"{where}.answer")


def _wrong_answer(task: Task, answer: object) -> str | None:
    if task.labels is None:
        wanted = dict if task.kind is Kind.FIELDS else str
        called = "an object" if task.kind is Kind.FIELDS else "a text"
        return None if isinstance(answer, wanted) else f"has to be {called}"
    if isinstance(answer, list) != task.several:
        return "has to be a list of labels" if task.several else "has to be one label"
    given = answer if isinstance(answer, list) else [answer]
    outside = [label for label in given if label not in task.labels]
    return f"has {outside[0]!r}, which is none of the labels" if outside else None
