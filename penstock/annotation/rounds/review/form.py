"""What people are asked about a row: what they see, and one control for each answer.

Knows the task, and no tool's file.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from penstock.annotation.records import Kind, Type
from penstock.annotation.rounds.rows import cell_text
from penstock.annotation.task.fields import types_of
from penstock.annotation.task.questions import voters
from penstock.annotation.task.task import Task
from penstock.errors import InvalidRequest

#: The key that every tool carries a row's id under.
ROW = "penstock_row"
#: Names that a tool uses itself, beside the data or as an attribute.
_RESERVED = {
    *("id", "annotator", "annotation_id", "created_at", "updated_at", "lead_time", "agreement"),
    *("fields", "metadata", "suggestions", "responses", "vectors", "status", "_server_id"),
    *("add", "create", "update", "serialize", "count", "index", "probability", ROW),
}
MAX_NAME = 100  # characters


class Asks(StrEnum):
    """What a control takes."""

    ONE = "one"  #: of the options
    SEVERAL = "several"  #: of the options
    TRUTH = "truth"
    NUMBER = "number"
    INTEGER = "integer"
    TEXT = "text"
    JSON = "json"


_ASKS = {
    Type.TEXT: Asks.TEXT,
    Type.NUMBER: Asks.NUMBER,
    Type.INTEGER: Asks.INTEGER,
    Type.TRUTH: Asks.TRUTH,
    Type.JSON: Asks.JSON,
}


@dataclass(frozen=True, slots=True)
class Control:
    """One question to a person. `name` is safe in every tool, `title` is what people read."""

    name: str
    title: str
    asks: Asks
    options: tuple[str, ...] = ()

    def take(self, given: object) -> object:
        """What a person gave as a value of the task. Raises ValueError, which says why not."""
        match self.asks:
            case Asks.ONE | Asks.TRUTH:
                chosen = self._option(given)
                return chosen == "true" if self.asks is Asks.TRUTH else chosen
            case Asks.SEVERAL:
                chosen_all = {self._option(item) for item in _listed(given)}
                return [option for option in self.options if option in chosen_all]
            case Asks.NUMBER | Asks.INTEGER:
                number = float(cell_text(given).replace(",", "."))
                return int(number) if number.is_integer() else number
            case Asks.JSON:
                return json.loads(given) if isinstance(given, str) else given
        return cell_text(given)

    def _option(self, given: object) -> str:
        items = _listed(given)
        text = cell_text(items[0]) if len(items) == 1 else cell_text(given)
        found = next((o for o in self.options if o == text or o == text.strip()), None)
        if self.asks is Asks.TRUTH:
            found = text.strip().lower() if text.strip().lower() in self.options else None
        if found is None:
            raise ValueError(f"{text!r} is none of {', '.join(self.options)}")
        return found


@dataclass(frozen=True, slots=True)
class Form:
    """`shown` has the columns that people see, by a name that is safe in every tool."""

    shown: Mapping[str, str]
    controls: tuple[Control, ...]
    kind: Kind
    model: str
    guidelines: str

    def suggested(self, value: object | None) -> dict[str, object]:
        """An answer of the model by control; without those it left empty."""
        if value is None:
            return {}
        if self.kind is not Kind.FIELDS:
            return {self.controls[0].name: value}
        cells = value if isinstance(value, Mapping) else {}
        found = {control.name: cells.get(control.title) for control in self.controls}
        return {name: cell for name, cell in found.items() if cell is not None}

    def gold(self, taken: Mapping[str, object]) -> str:
        """People's values by control as one cell: a label, a text, or JSON of several."""
        if self.kind is Kind.FIELDS:
            named = {c.title: taken[c.name] for c in self.controls if c.name in taken}
            return json.dumps(named, ensure_ascii=False)
        return cell_text(taken.get(self.controls[0].name))


def form_of(task: Task, columns: Sequence[str], model: str) -> Form:
    """For a table with `columns`. Shown is what the templates ask about, so never the gold."""
    asked = {name for voter in voters(task) if voter.questions for name in voter.questions.columns}
    shown = [name for name in columns if name in asked]
    controls = tuple(_controls(task))
    taken = _RESERVED | {control.name for control in controls}
    names = {_free(name, taken): name for name in shown}
    return Form(names, controls, task.kind, model, task.template)


def _controls(task: Task) -> Iterator[Control]:
    if task.kind is Kind.TEXT:
        yield Control("answer", "answer", Asks.TEXT)
    elif task.kind is Kind.LABELS:
        asks = Asks.SEVERAL if task.several else Asks.ONE
        yield Control("label", "label", asks, tuple(task.labels or ()))
    else:
        taken: set[str] = set(_RESERVED)
        schema = task.fields or {}
        properties = schema.get("properties")
        inner = properties if isinstance(properties, Mapping) else {}
        for name, type_ in types_of(schema).items():
            asks, options = _asks(type_, inner.get(name))
            yield Control(_free(name, taken), name, asks, options)


def _asks(type_: Type, schema: object) -> tuple[Asks, tuple[str, ...]]:
    inner = schema if isinstance(schema, Mapping) else {}
    if options := _options(inner):
        return Asks.ONE, options
    if options := _options(inner.get("items")):
        return Asks.SEVERAL, options
    return _ASKS[type_], ("true", "false") if type_ is Type.TRUTH else ()


def _options(schema: object) -> tuple[str, ...]:
    """Those of an enumeration of texts; none for any other schema."""
    found = schema.get("enum") if isinstance(schema, Mapping) else None
    if isinstance(found, list) and found and all(isinstance(item, str) for item in found):
        return tuple(found)
    return ()


def _free(name: str, taken: set[str]) -> str:
    """Lower-case letters, digits and underscores, unlike all in `taken`; adds it there."""
    plain = re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_")[:MAX_NAME] or "column"
    found, count = plain, 1
    while found in taken:
        count += 1
        found = f"{plain}_{count}"
    taken.add(found)
    return found


def _listed(given: object) -> list[object]:
    """A list as it is or as its JSON; a text with commas, as people type it, in its parts."""
    if isinstance(given, list):
        return given
    text = cell_text(given).strip()
    if text.startswith("["):
        try:
            found = json.loads(text)
        except ValueError:
            return [given]
        return found if isinstance(found, list) else [given]
    return [given]


def refused(file: str, row: object, control: Control, reason: ValueError) -> InvalidRequest:
    """A person's answer that cannot be one."""
    return InvalidRequest(f"{file}, row {row}, {control.title}: {reason}.", param="file")
