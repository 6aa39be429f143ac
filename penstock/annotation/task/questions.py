"""What each voter of a task is asked about a row, and how its answers are read. Posts nothing."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from penstock.annotation.records import Prompt, Reading, Row, Voter
from penstock.annotation.task.added import cells
from penstock.annotation.task.forms import LABEL, Form, form_of
from penstock.annotation.task.members import Member
from penstock.annotation.task.parsing import template_of
from penstock.annotation.task.task import Task
from penstock.annotation.task.template import Template
from penstock.client import Answer
from penstock.errors import InvalidRequest

__all__ = ["MemberQuestions", "cells", "voters"]

VERSION = 1  # of what a fingerprint stands for; another one must not meet an old answer


def voters(task: Task) -> tuple[Voter, ...]:
    """Those that are asked, then the columns of the table that vote as well. As `Verdict.votes`."""
    asked = (Voter(member.name, MemberQuestions(task, member)) for member in task.members)
    columns = (Voter(name, column=name) for name in task.votes.columns)
    return (*asked, *columns)


@dataclass(frozen=True)
class MemberQuestions:
    """The questions of one member: `records.Questions`."""

    task: Task
    member: Member

    @property
    def columns(self) -> Sequence[str]:
        return self._template.columns

    @property
    def per_row(self) -> int:
        return len(self._told)

    @cached_property
    def body(self) -> Mapping[str, object]:
        body = dict(self._form.body)
        if "seed" in body:
            body["seed"] = self.task.sampling.seed + self.member.sample
        if self.task.system is not None:
            body["system"] = self.task.system
        if self.member.model is not None:
            body["model"] = self.member.model
        return body

    @cached_property
    def fingerprint(self) -> str:
        asked = [VERSION, self.body, self.member.template, self._shots, self._endings]
        whole = json.dumps(asked, sort_keys=True)
        return hashlib.sha256(whole.encode("utf-8", "backslashreplace")).hexdigest()

    def ask(self, row: Row) -> Sequence[Prompt]:
        prompts: list[Prompt] = []
        same = (
            None if LABEL in self._template.given else _filled(self._template, row, self._told[0])
        )
        for told, shots, ending in zip(self._told, self._shots, self._endings, strict=True):
            question = (same or _filled(self._template, row, told)) + ending
            prompts.append([*shots, _turn("user", question)] if shots else question)
        return prompts

    def read(self, answers: Sequence[Answer]) -> Reading:
        tokens = [answer.tokens or (0, 0) for answer in answers]
        reading = self._read(answers)
        return Reading(
            value=reading.value,
            error=reading.error,
            scores=reading.scores,
            probabilities=reading.probabilities,
            prompt_tokens=sum(count for count, _ in tokens),
            completion_tokens=sum(count for _, count in tokens),
            reused=all(answer.reused for answer in answers),
        )

    def _read(self, answers: Sequence[Answer]) -> Reading:
        for answer in answers:
            if answer.text is None:
                return Reading(None, error=f"{answer.code}: {answer.message}")
        try:
            return self._form.read(answers)
        except (ValueError, KeyError) as error:
            return Reading(None, error=f"The answer cannot be read: {error}.")

    @cached_property
    def _form(self) -> Form:
        return form_of(self.task)

    @cached_property
    def _told(self) -> Sequence[Mapping[str, object]]:
        return self._form.told

    @cached_property
    def _template(self) -> Template:
        return template_of(self.task, self.member.template)

    @cached_property
    def _endings(self) -> Sequence[str]:
        return [self._form.ending(told, self._template) for told in self._told]

    @cached_property
    def _shots(self) -> Sequence[list[dict[str, str]]]:
        """The examples as earlier turns, for each prompt of a row."""
        return [
            [
                turn
                for example in self.task.examples
                for turn in (
                    _turn("user", _filled(self._template, example.columns, told) + ending),
                    _turn("assistant", self._form.shown(example.answer, told)),
                )
            ]
            for told, ending in zip(self._told, self._endings, strict=True)
        ]


def _filled(template: Template, row: Row, told: Mapping[str, object]) -> str:
    text = template.render(row, {name: told[name] for name in template.given})
    if not text.strip():
        raise InvalidRequest("The template comes out empty.", param="template")
    return text


def _turn(role: str, content: str) -> dict[str, str]:
    return {"role": role, "content": content}
