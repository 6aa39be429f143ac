"""People at work in their tools: from an exported file to what the tool exports afterwards."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from penstock.annotation.rounds.review.tools import Tool

Json = dict[str, Any]
#: The exported file, and the one that the tool writes.
People = Callable[[Path, Path], None]


def annotation(labels: Iterable[str], **more: object) -> Json:
    """As Label Studio exports one."""
    result = {
        "id": "Dx_aB91ISN",
        "from_name": "label",
        "to_name": "shown-text",
        "type": "choices",
        "origin": "manual",
        "value": {"choices": list(labels)},
    }
    return {
        "id": 1001,
        "completed_by": 7,
        "result": [result] if labels else [],
        "was_cancelled": False,
        "ground_truth": False,
        "created_at": "2026-03-09T22:16:08.728353Z",
        "updated_at": "2026-03-09T22:16:08.728378Z",
        "lead_time": 4.288,
    } | more


def label_studio(work: Mapping[int, list[Json]]) -> People:
    """An export in JSON: all tasks, with the annotations of `work` by row."""

    def people(given: Path, back: Path) -> None:
        tasks = json.loads(given.read_text())
        for number, task in enumerate(tasks, 1):
            row = int(task["data"]["penstock_row"].split("-")[0])
            done = work.get(row, [])
            task |= {"id": number, "project": 3, "annotations": done, "drafts": []}
            task |= {"total_annotations": len(done), "inner_id": number, "meta": {}}
        back.write_text(json.dumps(tasks, indent=2))

    return people


def label_studio_min(work: Mapping[int, list[str]]) -> People:
    """An export in JSON-MIN: one flat object for each annotation."""

    def people(given: Path, back: Path) -> None:
        records = []
        for number, task in enumerate(json.loads(given.read_text()), 1):
            row = int(task["data"]["penstock_row"].split("-")[0])
            for label in work.get(row, []):
                about = {"id": number, "annotator": 7, "annotation_id": 1, "lead_time": 1.5}
                records.append(task["data"] | {"label": label} | about)
        back.write_text(json.dumps(records))

    return people


def argilla(work: Mapping[int, list[tuple[str, str]]], *, flat: bool = False) -> People:
    """`records.to_json`, or `to_list(flatten=True)`; each response is a value and its status."""

    def people(given: Path, back: Path) -> None:
        records = json.loads(given.read_text())
        for record in records:
            done = work.get(int(record["id"].split("-")[0]), [])
            users = [f"9f1c-{number}" for number in range(len(done))]
            if flat:
                del record["responses"], record["suggestions"]
                record.update(record.pop("fields") | record.pop("metadata"))
                record["label.responses"] = [value for value, _ in done] or None
                record["label.responses.users"] = users or None
                record["label.responses.status"] = [status for _, status in done] or None
            else:
                record["responses"]["label"] = [
                    {"value": value, "user_id": user, "status": status}
                    for user, (value, status) in zip(users, done, strict=True)
                ]
            record["_server_id"] = "c0ffee"
        back.write_text(json.dumps(records))

    return people


def sheet(work: Mapping[int, list[str]]) -> People:
    """A spreadsheet that saves with semicolons; a second person's line is a copy of the row."""

    def people(given: Path, back: Path) -> None:
        with given.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file)
            lines = list(reader)
        with back.open("w", encoding="utf-8-sig", newline="") as file:
            writer = csv.DictWriter(file, reader.fieldnames or [], delimiter=";")
            writer.writeheader()
            for line in lines:
                answers = work.get(int(line["penstock_row"].split("-")[0]), [""])
                writer.writerows({**line, "your_label": answer} for answer in answers)

    return people


def answer_by_suggestion(tool: Tool, file: Path, back: Path) -> None:
    """A person who agrees with everything."""
    if tool is Tool.CSV:
        with file.open(encoding="utf-8-sig", newline="") as given:
            reader = csv.DictReader(given)
            lines = list(reader)
        with back.open("w", encoding="utf-8", newline="") as taken:
            writer = csv.DictWriter(taken, reader.fieldnames or [])
            writer.writeheader()
            for line in lines:
                same = {k.replace("model_", "your_"): v for k, v in line.items() if "model_" in k}
                writer.writerow(line | same)
        return
    items = json.loads(file.read_text())
    for number, item in enumerate(items, 1):
        if tool is Tool.LABELSTUDIO:
            agreed = item["predictions"][0]["result"]
            item |= {"id": number, "annotations": [annotation([]) | {"result": agreed}]}
        else:
            item["responses"] = {
                name: [{"value": one["value"], "user_id": "u", "status": "submitted"}]
                for name, one in item["suggestions"].items()
            }
    back.write_text(json.dumps(items))
