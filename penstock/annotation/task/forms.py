"""The forms of an answer: what a job asks for, how the question ends, and how an answer is read.

One for each output of a task: a label by its score or written, several labels, fields, a text.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from penstock.annotation.records import Kind, Reading
from penstock.annotation.task.fields import read_fields, response_format
from penstock.annotation.task.task import Task
from penstock.annotation.task.template import Template
from penstock.client import Answer

LABELS, LABEL = "labels", "label"  #: what a template may name beside the columns
YES, NO = "yes", "no"


class Form(Protocol):
    """What the answers of a task are."""

    @property
    def body(self) -> Mapping[str, object]:
        """Of the job."""

    @property
    def told(self) -> Sequence[Mapping[str, object]]:
        """What each prompt of a row is told beside its columns."""

    def ending(self, told: Mapping[str, object], template: Template) -> str:
        """The last line of the question, for what the template does not say itself."""

    def shown(self, answer: object, told: Mapping[str, object]) -> str:
        """An example's answer, as the model should write it."""

    def read(self, answers: Sequence[Answer]) -> Reading:
        """The answers to one row's prompts, all of them texts."""


def form_of(task: Task) -> Form:
    """That of the task."""
    if task.kind is Kind.FIELDS:
        return Fields(task)
    if task.kind is Kind.TEXT:
        return FreeText(task)
    if task.several:
        return EachScored(task) if task.scored else SeveralDecoded(task)
    return OneOf(task)


def listed(task: Task, template: Template) -> bool:
    """The labels need not be added to the question: it or the system prompt has them all."""
    if not task.list_labels or template.given:
        return True
    said = f"{template.text}\n{task.system or ''}"
    words = (rf"(?<!\w){re.escape(label)}(?!\w)" for label in task.labels or ())
    return all(re.search(word, said) for word in words)


@dataclass(frozen=True, slots=True)
class _Base:
    task: Task

    @property
    def labels(self) -> tuple[str, ...]:
        return self.task.labels or ()

    @property
    def told(self) -> Sequence[Mapping[str, object]]:
        return ({LABELS: list(self.labels)},)

    def ending(self, told: Mapping[str, object], template: Template) -> str:
        return ""

    def shown(self, answer: object, told: Mapping[str, object]) -> str:
        return answer if isinstance(answer, str) else json.dumps(answer, ensure_ascii=False)


class OneOf(_Base):
    """One of the labels, scored or written."""

    __slots__ = ()

    @property
    def body(self) -> Mapping[str, object]:
        if not self.task.scored:
            return {"choices": list(self.labels), "mode": "generate", **drawn(self.task)}
        return {"choices": list(self.labels), **scoring(self.task)}

    def ending(self, told: Mapping[str, object], template: Template) -> str:
        if listed(self.task, template):
            return ""
        return f"\nAnswer with one of: {', '.join(self.labels)}."

    def read(self, answers: Sequence[Answer]) -> Reading:
        text = (answers[0].text or "").strip()
        if text not in self.labels:
            return Reading(None, error=f"The answer {short(text)} is none of the labels.")
        if not self.task.scored:
            return Reading(text)
        scores, probabilities = measured(answers[0])
        return Reading(text, scores=scores, probabilities=probabilities)


class EachScored(_Base):
    """Whether each label applies, one prompt for each. The scores are those of `yes`."""

    __slots__ = ()

    @property
    def body(self) -> Mapping[str, object]:
        return {"choices": [YES, NO], **scoring(self.task)}

    @property
    def told(self) -> Sequence[Mapping[str, object]]:
        return tuple({LABELS: list(self.labels), LABEL: label} for label in self.labels)

    def ending(self, told: Mapping[str, object], template: Template) -> str:
        if LABEL in template.given:
            return ""
        return f'\nDoes the label "{told[LABEL]}" apply? Answer yes or no.'

    def shown(self, answer: object, told: Mapping[str, object]) -> str:
        return YES if isinstance(answer, list) and told[LABEL] in answer else NO

    def read(self, answers: Sequence[Answer]) -> Reading:
        scores, shares = {}, {}
        for label, answer in zip(self.labels, answers, strict=True):
            measure, probabilities = measured(answer)
            scores[label], shares[label] = measure[YES], probabilities[YES]
        value = [label for label, share in shares.items() if share >= 0.5]
        return Reading(value, scores=scores, probabilities=shares)


class SeveralDecoded(_Base):
    """A JSON list of labels, written."""

    __slots__ = ()

    @property
    def body(self) -> Mapping[str, object]:
        schema = {
            "type": "array",
            "items": {"enum": list(self.labels)},
            "maxItems": len(self.labels),
        }
        asked = {"type": "json_schema", "json_schema": {"schema": schema}}
        return {"response_format": asked, **drawn(self.task)}

    def ending(self, told: Mapping[str, object], template: Template) -> str:
        if listed(self.task, template):
            return ""
        labels = json.dumps(self.labels, ensure_ascii=False)
        return f"\nAnswer with a JSON list of those that apply of: {labels}."

    def read(self, answers: Sequence[Answer]) -> Reading:
        text = answers[0].text or ""
        try:
            found = json.loads(text)
        except (ValueError, RecursionError):
            found = None
        if not isinstance(found, list) or any(label not in self.labels for label in found):
            return Reading(None, error=f"The answer {short(text)} is no list of labels.")
        return Reading([label for label in self.labels if label in found])


class Fields(_Base):
    """A JSON object, written as its schema says."""

    __slots__ = ()

    @property
    def body(self) -> Mapping[str, object]:
        return {"response_format": response_format(self.task.fields or {}), **drawn(self.task)}

    def read(self, answers: Sequence[Answer]) -> Reading:
        text = answers[0].text or ""
        try:
            return Reading(read_fields(text, self.task.fields or {}))
        except ValueError as error:
            return Reading(None, error=f"The answer {short(text)} cannot be read: {error}.")


class FreeText(_Base):
    """Any text."""

    __slots__ = ()

    @property
    def body(self) -> Mapping[str, object]:
        return drawn(self.task)

    def read(self, answers: Sequence[Answer]) -> Reading:
        return Reading(answers[0].text)


def scoring(task: Task) -> dict[str, object]:
    """Nothing is drawn, so no sampling is asked for."""
    asked: dict[str, object] = {"mode": "score"}
    if task.length_normalized:
        asked["length_normalized"] = True
    return asked


def drawn(task: Task) -> dict[str, object]:
    """How answers are drawn, as `/batch-generate` names it."""
    return task.sampling.model_dump(mode="json")


def measured(answer: Answer) -> tuple[dict[str, float], dict[str, float]]:
    """Log-likelihoods and probabilities of the choices. Raises ValueError where there are none."""
    detail = answer.detail or {}
    scores, probabilities = detail.get("scores"), detail.get("probabilities")
    if not isinstance(scores, Mapping) or not isinstance(probabilities, Mapping):
        raise ValueError("the service told no probabilities")
    return dict(scores), dict(probabilities)


def short(text: str) -> str:
    """A text as a sentence quotes it."""
    return repr(text if len(text) <= 80 else text[:79] + "…")
