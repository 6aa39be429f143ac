"""What is wrong with a table for a task, found in one pass before anything runs; and what is to be
said of labels that begin alike. Knows no format and no service."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from itertools import combinations

from penstock.annotation.records import Kind, Record
from penstock.annotation.task.forms import short
from penstock.annotation.task.questions import voters
from penstock.annotation.task.task import Task
from penstock.annotation.trust.right import labels_of, missing, object_of
from penstock.errors import InvalidRequest

SHOWN = 3  #: pairs of labels in a sentence


class Check:
    """Of one table, called `name` in messages. Raises InvalidRequest for prompts without content
    that cannot be asked.

    `columns_of` is for the source's columns: before the first row, where none may be known yet,
    and after the last one, when all are.
    """

    def __init__(self, task: Task, name: str) -> None:
        self._task = task
        self._name = name
        self._voters = voters(task)
        self._questions = [voter.questions for voter in self._voters if voter.questions]
        self._answers = [("votes.columns", column) for column in task.votes.columns]
        if task.gold is not None:
            self._answers.append(("gold", task.gold))
        for text in task.content_free:
            self._check_without_content(text)

    def columns_of(self, columns: Sequence[str]) -> None:
        """Raises InvalidRequest for a column that the task names and the table has not."""
        if not columns:
            return
        asked = [("template", name) for each in self._questions for name in each.columns]
        for key, name in (*asked, *self._answers):
            if name not in columns:
                raise InvalidRequest(
                    f"{self._name} has no column {name!r}, which `{key}` names; "
                    f"it has: {', '.join(columns)}.",
                    param=key,
                )

    def row(self, record: Record) -> None:
        """Raises InvalidRequest for a row that cannot be asked about, or has a wrong gold cell."""
        try:
            for questions in self._questions:
                questions.ask(record.row)
        except InvalidRequest as error:
            raise self._error(record, error.message, error.param or "template") from None
        for key, column in self._answers:
            cell = record.row.get(column)
            if not missing(cell) and (reason := self._wrong(cell)) is not None:
                raise self._error(record, f"the column {column!r} has {reason}.", key)

    def _check_without_content(self, text: str) -> None:
        try:
            for questions in self._questions:
                questions.ask(dict.fromkeys(questions.columns, text))
        except InvalidRequest as error:
            raise InvalidRequest(
                f"`content_free` with {text!r} in each column: {error.message}",
                param="content_free",
            ) from None

    def _wrong(self, cell: object) -> str | None:
        """Why a cell with an answer is none; None where it is one."""
        labels = self._task.labels
        if labels is not None:
            given = labels_of(cell) if self._task.several else {str(cell).strip()}
            outside = sorted(given.difference(labels))
            return f"{short(outside[0])}, which is none of the labels" if outside else None
        if self._task.kind is Kind.FIELDS:
            found = object_of(cell)
            if found is None:
                return f"{short(str(cell))}, which is no JSON object"
            unknown = sorted(map(str, found.keys() - self._task.types.keys()))
            return f"{unknown[0]!r}, which is none of the fields" if unknown else None
        return None

    def _error(self, record: Record, reason: str, param: str) -> InvalidRequest:
        return InvalidRequest(f"{self._name}, {record.place}: {reason}", param=param)


def told_gold(task: Task) -> list[str]:
    """That a prompt is told the right answer, in a sentence; none where it is not."""
    asked = (voter.questions.columns for voter in voters(task) if voter.questions)
    if task.gold is None or not any(task.gold in columns for columns in asked):
        return []
    return [
        f"`template` names {task.gold!r}, the gold column: the model is told the right answers, so "
        "accuracy and calibration on gold rows say nothing."
    ]


def shared_first_tokens(choices: Mapping[str, Sequence[int]]) -> list[tuple[str, str]]:
    """The pairs of labels whose first token is the same, from the token ids of each."""
    groups: defaultdict[int, list[str]] = defaultdict(list)
    for label, tokens in choices.items():
        if tokens:
            groups[tokens[0]].append(label)
    return [pair for group in groups.values() for pair in combinations(group, 2)]


def shared_sentence(pairs: Sequence[tuple[str, str]]) -> str:
    """What a user should know of them."""
    shown = "; ".join(f"{one!r} and {other!r}" for one, other in pairs[:SHOWN])
    more = f" and {len(pairs) - SHOWN} more" if len(pairs) > SHOWN else ""
    return (
        f"Labels begin with the same token: {shown}{more}. Their scores stay sound, since each "
        "label is scored as a whole."
    )
