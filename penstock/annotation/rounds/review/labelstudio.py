"""Label Studio: tasks with pre-annotations and a labeling config out; its exports JSON and
JSON-MIN in. The format is that of labelstud.io/guide/task_format and /guide/predictions."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from xml.sax.saxutils import quoteattr

from penstock.annotation.rounds.review.files import fresh, read_objects, write_list, write_text
from penstock.annotation.rounds.review.form import ROW, Asks, Control, Form, refused
from penstock.annotation.rounds.review.item import Item
from penstock.annotation.rounds.review.people import Given
from penstock.annotation.rounds.rows import RowId, cell_text
from penstock.errors import InvalidRequest

#: Before the name of a shown column: tags that show and tags that ask share one namespace, and no
#: control has a hyphen in its name.
SHOWN = "shown-"


def write(path: Path, items: Iterable[Item], form: Form) -> list[Path]:
    """Tasks to import, and beside them the labeling config of the project."""
    config = path.with_name(f"{path.name}.config.xml")
    fresh(path, config)
    write_list(path, (_task(item, form) for item in items))
    write_text(config, _config(form))
    return [path, config]


def read(path: Path, form: Form) -> Iterator[Given]:
    """People's answers of an export. What they skipped, or only drafted, is no answer."""
    for task in read_objects(path):
        data = task.get("data")
        if isinstance(data, Mapping):
            yield from _annotated(task, _row(data, path), path, form)
        else:  # JSON-MIN: one object for each annotation, its values beside the data
            row = _row(task, path)
            yield Given(row, _cell(task, form, path, row))


def _task(item: Item, form: Form) -> dict[str, object]:
    results = [_result(control, item, form) for control in form.controls]
    prediction: dict[str, object] = {
        "model_version": form.model,
        "result": [result for result in results if result],
    }
    if item.probability is not None:
        prediction["score"] = item.probability
    data: dict[str, object] = {name: item.shown[name] for name in form.shown}
    task: dict[str, object] = {"data": data | {ROW: str(item.row)}}
    if prediction["result"]:
        task["predictions"] = [prediction]
    return task


def _result(control: Control, item: Item, form: Form) -> dict[str, object] | None:
    value = item.suggested.get(control.name)
    if value is None:
        return None
    kind, held = _held(control, value)
    return {
        "id": f"{item.row.number}_{control.name}",
        "from_name": control.name,
        "to_name": _object(form),
        "type": kind,
        "value": held,
    }


def _held(control: Control, value: object) -> tuple[str, dict[str, object]]:
    match control.asks:
        case Asks.ONE | Asks.TRUTH:
            return "choices", {"choices": [cell_text(value)]}
        case Asks.SEVERAL:
            return "choices", {"choices": value if isinstance(value, list) else [value]}
        case Asks.NUMBER | Asks.INTEGER:
            return "number", {"number": value}
    return "textarea", {"text": [cell_text(value)]}


def _annotated(task: Mapping[str, object], row: RowId, path: Path, form: Form) -> Iterator[Given]:
    found = task.get("annotations", task.get("completions"))
    annotations = found if isinstance(found, list) else []
    if not annotations:
        yield Given(row, None)
    for one in annotations:
        skipped = one.get("was_cancelled") or one.get("skipped")
        cell = None if skipped else _cell(_results(one), form, path, row)
        yield Given(row, cell, one.get("ground_truth") is True)


def _results(annotation: Mapping[str, object]) -> dict[str, object]:
    """What an annotation holds by control."""
    results = annotation.get("result")
    return {
        result["from_name"]: result.get("value")
        for result in (results if isinstance(results, list) else ())
        if isinstance(result, Mapping) and isinstance(result.get("from_name"), str)
    }


def _cell(given: Mapping[str, object], form: Form, path: Path, row: RowId) -> str | None:
    """The gold cell; None where no control was used."""
    taken: dict[str, object] = {}
    for control in form.controls:
        value = _plain(given.get(control.name), control)
        if value in (None, [], ""):
            continue
        try:
            taken[control.name] = control.take(value)
        except ValueError as error:
            raise refused(str(path), row, control, error) from None
    return form.gold(taken) if taken else None


def _plain(value: object, control: Control) -> object:
    """A value without what is around it: `{"choices": [...]}`, in JSON-MIN a list of one such."""
    if isinstance(value, list) and len(value) == 1 and isinstance(value[0], Mapping):
        value = value[0]
    if isinstance(value, Mapping):
        value = next((value[key] for key in ("choices", "text", "number") if key in value), None)
    if isinstance(value, list) and value and control.asks is not Asks.SEVERAL:
        return value[0]
    return value


def _row(data: Mapping[str, object], path: Path) -> RowId:
    if ROW not in data:
        raise InvalidRequest(
            f"{path} has a task without {ROW!r} in its data, "
            "so that its row is not known; export the project of the exported tasks.",
            param="file",
        )
    return RowId.parse(data[ROW])


def _object(form: Form) -> str:
    return SHOWN + next(iter(form.shown))


def _config(form: Form) -> str:
    lines = ["<View>"]
    for name, column in form.shown.items():
        lines.append(f"  <Header value={quoteattr(column)}/>")
        lines.append(f'  <Text name="{SHOWN}{name}" value="${name}"/>')
    for control in form.controls:
        lines.append(f"  <Header value={quoteattr(control.title)}/>")
        lines += [f"  {line}" for line in _tag(control, _object(form))]
    return "\n".join([*lines, "</View>", ""])


def _tag(control: Control, to: str) -> list[str]:
    where = f'name="{control.name}" toName="{to}"'
    if control.options:
        choice = "multiple" if control.asks is Asks.SEVERAL else "single"
        options = [f"  <Choice value={quoteattr(option)}/>" for option in control.options]
        return [f'<Choices {where} choice="{choice}">', *options, "</Choices>"]
    if control.asks in (Asks.NUMBER, Asks.INTEGER):
        step = "1" if control.asks is Asks.INTEGER else "0.01"
        return [f'<Number {where} step="{step}"/>']
    return [f'<TextArea {where} maxSubmissions="1" editable="true"/>']
