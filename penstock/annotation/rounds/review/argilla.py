"""Argilla 2: records and settings out, as `dataset.records.from_json` and `rg.Settings.from_json`
read them; records in, as `dataset.records.to_json` or `.to_list(flatten=True)` gives them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from itertools import zip_longest
from pathlib import Path

from penstock.annotation.rounds.review.files import fresh, read_objects, write_list, write_text
from penstock.annotation.rounds.review.form import Asks, Control, Form, refused
from penstock.annotation.rounds.review.item import Item
from penstock.annotation.rounds.review.people import Given
from penstock.annotation.rounds.rows import RowId, cell_text
from penstock.errors import InvalidRequest

#: One person's answers by control.
_Answers = dict[str, object]


def write(path: Path, items: Iterable[Item], form: Form) -> list[Path]:
    """Records to import, and beside them the settings of their dataset."""
    settings = path.with_name(f"{path.name}.settings.json")
    fresh(path, settings)
    write_list(path, (_record(item, form) for item in items))
    write_text(settings, json.dumps(_settings(form), ensure_ascii=False, indent=1) + "\n")
    return [path, settings]


def read(path: Path, form: Form) -> Iterator[Given]:
    """People's answers of an export. What they discarded, or only drafted, is no answer."""
    for record in read_objects(path):
        if "id" not in record:
            raise InvalidRequest(f"{path} has a record without an id.", param="file")
        row = RowId.parse(record["id"])
        people = _by_person(record, form)
        if not people:
            yield Given(row, None)
        for answers in people.values():
            yield Given(row, _cell(answers, form, path, row))


def _record(item: Item, form: Form) -> dict[str, object]:
    return {
        "id": str(item.row),
        "fields": {name: item.shown[name] for name in form.shown},
        "metadata": {} if item.probability is None else {"probability": item.probability},
        "suggestions": {
            control.name: {
                "value": _suggestion(control, item.suggested[control.name]),
                # A score is of one value; of a list Argilla wants one for each.
                "score": None if control.asks is Asks.SEVERAL else item.probability,
                "agent": _agent(form.model),
            }
            for control in form.controls
            if control.name in item.suggested
        },
        "responses": {},
        "vectors": {},
    }


def _suggestion(control: Control, value: object) -> object:
    if control.asks is Asks.SEVERAL:
        return value if isinstance(value, list) else [value]
    return cell_text(value)


def _agent(model: str) -> str:
    """Argilla takes letters, digits and a few marks there."""
    kept = "".join(mark if mark.isascii() and mark.isalnum() else "-" for mark in model)
    return kept.strip("-")[:200] or "penstock"


def _by_person(record: Mapping[str, object], form: Form) -> dict[object, _Answers]:
    """What each person submitted."""
    found: dict[object, _Answers] = {}
    for control in form.controls:
        for person, value, status in _responses(record, control.name):
            if value is not None and status in (None, "submitted"):
                found.setdefault(person, {})[control.name] = value
    return found


def _responses(record: Mapping[str, object], name: str) -> Iterator[tuple[object, object, object]]:
    """Person, value and status of each response to one question, in either form of export."""
    responses = record.get("responses")
    if isinstance(responses, Mapping):
        for one in responses.get(name) or ():
            yield one.get("user_id"), one.get("value"), one.get("status")
        return
    flat = [_list(record.get(f"{name}.responses{end}")) for end in ("", ".users", ".status")]
    for value, person, status in zip_longest(*flat):
        yield person, value, status


def _list(found: object) -> list[object]:
    return found if isinstance(found, list) else []


def _cell(answers: _Answers, form: Form, path: Path, row: RowId) -> str:
    taken: _Answers = {}
    for control in form.controls:
        if control.name in answers:
            try:
                taken[control.name] = control.take(answers[control.name])
            except ValueError as error:
                raise refused(str(path), row, control, error) from None
    return form.gold(taken)


def _settings(form: Form) -> dict[str, object]:
    return {
        "guidelines": form.guidelines,
        "questions": [_question(control) for control in form.controls],
        "fields": [
            {
                "name": name,
                "title": column,
                "required": False,
                "settings": {"type": "text", "use_markdown": False},
            }
            for name, column in form.shown.items()
        ],
        "vectors": [],
        "metadata": [
            {
                "name": "probability",
                "title": "probability",
                "visible_for_annotators": True,
                "settings": {"type": "float", "min": 0.0, "max": 1.0},
            }
        ],
        "allow_extra_metadata": True,
        "distribution": {"strategy": "overlap", "min_submitted": 1},
    }


def _question(control: Control) -> dict[str, object]:
    settings: dict[str, object] = {"type": "text", "use_markdown": False}
    if control.options:
        several = control.asks is Asks.SEVERAL
        settings = {
            "type": "multi_label_selection" if several else "label_selection",
            "options": [{"value": option, "text": option} for option in control.options],
            "visible_options": None,
        }
        if several:
            settings["options_order"] = "natural"
    return {
        "name": control.name,
        "title": control.title,
        "description": None,
        "required": True,
        "settings": settings,
    }
