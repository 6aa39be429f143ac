"""The task file: what is asked about each row, and what the output adds. Pydantic at the edge:
read from TOML or made in Python, checked as a whole, never changed. Knows no table."""

from __future__ import annotations

import hashlib
import json
import tomllib
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from penstock.annotation.records import Column, Kind, Type
from penstock.annotation.task.added import columns
from penstock.annotation.task.consistency import check
from penstock.annotation.task.fields import types_of
from penstock.annotation.task.members import Member, members
from penstock.annotation.task.mistakes import sentence
from penstock.errors import InvalidRequest
from penstock.schemas.sampling import MAX_CHOICES, MAX_STOPS, MIN_CHOICES, Choice, Stop

MOST_BYTES = 1_048_576  #: of a task file

Share = Annotated[float, Field(ge=0, le=1)]
Text = Annotated[str, Field(min_length=1)]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Example(_Part):
    """A row with its answer, shown to the model before the question."""

    columns: dict[str, object] = Field(description="A cell for each column of the template.")
    answer: str | list[str] | dict[str, object] = Field(
        description="A label or a text; a list of labels with `several`; an object with `fields`."
    )


class Sampling(_Part):
    """How answers are drawn, as `/batch-generate` names it. Scored labels are not drawn."""

    max_tokens: int = Field(default=200, ge=1, le=131_072, description="Most new tokens.")
    temperature: float = Field(
        default=0.0, ge=0, le=2, description="0 always takes the likeliest token."
    )
    top_p: float = Field(default=0.95, gt=0, le=1, description="Nucleus: kept probability mass.")
    top_k: int = Field(
        default=0, ge=0, le=1_000_000, description="Most likely tokens kept; 0: all."
    )
    min_p: Share = Field(default=0.0, description="Floor relative to the likeliest token.")
    repetition_penalty: float = Field(default=1.0, gt=0, le=10, description="1 changes nothing.")
    presence_penalty: float = Field(
        default=0.0, ge=-2, le=2, description="Taken from a token that the answer has already."
    )
    frequency_penalty: float = Field(
        default=0.0, ge=-2, le=2, description="Taken for each time that the answer has a token."
    )
    seed: int = Field(default=0, ge=0, lt=2**62, description="Same seed, same answers.")
    stop: tuple[Stop, ...] = Field(
        default=(), max_length=MAX_STOPS, description="Texts that end an answer."
    )


class Votes(_Part):
    """Who else is asked. Each template is asked of each model, so many times; each is a job of its
    own, and the majority is the answer."""

    samples: int = Field(
        default=1, ge=1, le=16, description="Answers drawn for each template and model."
    )
    templates: tuple[Text, ...] = Field(
        default=(), max_length=8, description="Further templates beside the task's own."
    )
    models: tuple[Text, ...] = Field(
        default=(), max_length=8, description="Further models or adapters beside the task's own."
    )
    columns: tuple[Text, ...] = Field(
        default=(), max_length=8, description="Columns that hold other annotators' labels."
    )


class Review(_Part):
    """Which rows a human should look at; rows that failed always."""

    below: Share | None = Field(default=None, description="Those with a smaller probability.")
    disagreement: bool = Field(default=True, description="Those on which the votes differ.")


class Task(_Part):
    """What is asked about each row. Exactly one of `labels`, `fields` and `text` says what an
    answer is. Raises InvalidRequest where the parts contradict each other."""

    name: Text = Field(default="annotation", description="For reports.")
    template: Text = Field(
        description="The question in Jinja, with columns by name: `{{ text }}`, or "
        '`{{ row["my text"] }}`. `{{ labels }}` are the labels; with `several` and `score`, '
        "`{{ label }}` is the one that is asked about."
    )
    system: str | None = Field(
        default=None, max_length=100_000, description="System prompt: plain text, no template."
    )
    examples: tuple[Example, ...] = Field(
        default=(), max_length=64, description="Rows with their answers, shown first."
    )
    labels: tuple[Choice, ...] | None = Field(
        default=None, min_length=MIN_CHOICES, max_length=MAX_CHOICES, description="The answers."
    )
    several: bool = Field(default=False, description="More than one label may apply, or none.")
    mode: Literal["score", "decode"] = Field(
        default="score",
        description="`score`: a probability for each label. `decode`: the model writes its answer.",
    )
    list_labels: bool = Field(
        default=True,
        description="End the question with the labels, where template and system lack one of them.",
    )
    length_normalized: bool = Field(
        default=False, description="Compare labels by their mean log-likelihood per token."
    )
    content_free: tuple[str, ...] = Field(
        default=(),
        max_length=16,
        description="Contextual calibration: texts that stand for every column in a prompt without "
        'content, such as "N/A". What the labels get there is taken from their scores.',
    )
    fields: dict[str, object] | None = Field(
        default=None,
        description="A JSON schema of an object: each property becomes a column.",
    )
    text: bool = Field(default=False, description="The answer is a text.")
    model: Text | None = Field(
        default=None, max_length=256, description="By default the one that is served."
    )
    sampling: Sampling = Sampling()
    votes: Votes = Votes()
    gold: Text | None = Field(
        default=None, description="The column that holds the right answers, where it has any."
    )
    review: Review = Review()
    calibrate: bool = Field(
        default=True, description="Fit the probabilities to the gold rows (temperature scaling)."
    )
    all_probabilities: bool = Field(
        default=False, description="A column with the probabilities of all labels."
    )
    prefix: str = Field(
        default="", max_length=64, description="Before the names of the columns that are added."
    )

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        check(self)
        return self

    def model_copy(self, *, update: Mapping[str, object] | None = None, deep: bool = False) -> Self:
        """A copy, checked like every task."""
        return type(self).model_validate({**self.model_dump(exclude_unset=True), **(update or {})})

    @property
    def kind(self) -> Kind:
        if self.labels is not None:
            return Kind.LABELS
        return Kind.FIELDS if self.fields is not None else Kind.TEXT

    @property
    def scored(self) -> bool:
        """Each answer has probabilities."""
        return self.labels is not None and self.mode == "score"

    @cached_property
    def members(self) -> tuple[Member, ...]:
        """Those that are asked, each in jobs of its own."""
        return members(self)

    @cached_property
    def types(self) -> Mapping[str, Type]:
        """Of the fields' cells, in the schema's order."""
        return types_of(self.fields or {})

    @cached_property
    def columns(self) -> tuple[Column, ...]:
        """What the output adds, in order."""
        return columns(self)

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the whole task."""
        whole = json.dumps(self.model_dump(mode="json"), sort_keys=True)
        return hashlib.sha256(whole.encode("utf-8", "backslashreplace")).hexdigest()


def load_task(path: Path) -> Task:
    """The task of a TOML file. Raises InvalidRequest with the key that is wrong."""
    return task_from(path)


def task_from(task: Task | Path | str | Mapping[str, object] | None, **overrides: object) -> Task:
    """A task from a file (a path, or a text that ends in `.toml`), a template (any other text), a
    mapping, or from `overrides` alone. These win; None among them is not given. They are the keys
    of the task, of its sampling (`temperature=0.5`), `review_below`, or reach into it by a dot.
    """
    if isinstance(task, Path) or (isinstance(task, str) and task.endswith(".toml")):
        path = Path(task)
        source, data = str(path), {"name": path.stem, **_read(path)}
    elif isinstance(task, str):
        source, data = "The task", {"template": task}
    elif task is None or isinstance(task, Task | Mapping):
        source = "The task"
        data = task.model_dump(exclude_unset=True) if isinstance(task, Task) else dict(task or {})
    else:
        raise InvalidRequest(
            f"A task is a file (.toml), a template or a mapping, not a {type(task).__name__}.",
            param="task",
        )
    try:
        return Task.model_validate(_overridden(data, overrides))
    except ValidationError as error:
        raise sentence(error, source, Task) from None
    except InvalidRequest as error:
        raise InvalidRequest(f"{source}: {error.message}", param=error.param) from None


def _read(path: Path) -> dict[str, object]:
    try:
        with path.open("rb") as file:
            raw = file.read(MOST_BYTES + 1)
        if len(raw) > MOST_BYTES:
            raise ValueError(f"it is larger than {MOST_BYTES:,} bytes")
        return tomllib.loads(raw.decode("utf-8"))
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise InvalidRequest(f"{path} cannot be read: {reason}.", param="task") from None
    except (ValueError, RecursionError) as error:
        raise InvalidRequest(f"{path} is no task file in TOML: {error}.", param="task") from None


_KINDS = ("labels", "fields", "text")


def _overridden(data: dict[str, object], overrides: Mapping[str, object]) -> dict[str, object]:
    given = {key: value for key, value in overrides.items() if value is not None}
    if any(given.get(kind) for kind in _KINDS):
        data = {key: value for key, value in data.items() if key not in _KINDS}
    for key, value in given.items():
        *rooms, last = _address(key)
        data = _set(data, rooms, last, value)
    return data


def _address(key: str) -> list[str]:
    if key in Sampling.model_fields:
        return ["sampling", key]
    return ["review", "below"] if key == "review_below" else key.split(".")


def _set(data: dict[str, object], rooms: list[str], key: str, value: object) -> dict[str, object]:
    """`data` with a value set within, a copy."""
    if not rooms:
        return {**data, key: value}
    inner = data.get(rooms[0])
    inside = dict(inner) if isinstance(inner, Mapping) else {}
    return {**data, rooms[0]: _set(inside, rooms[1:], key, value)}
