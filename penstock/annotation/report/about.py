"""A report: what was found in a table, and what its manifest says of how it was made."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import islice, pairwise
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import TypeAdapter, ValidationError

from penstock.annotation.records import Count, Receipt, Source
from penstock.annotation.report.gather import Findings, gather
from penstock.annotation.report.layout import Layout, guessed, of_task
from penstock.annotation.trust.calibration import Calibration

if TYPE_CHECKING:
    from penstock.annotation.rounds.manifest import Manifest, Model
    from penstock.annotation.task.task import Task

MOST_POINTS = 120  # of throughput
CONTEXTUAL, SCALING = "contextual calibration", "temperature scaling"
LOOKED_AT = 200  # rows, where nothing else says what the columns are


@dataclass(frozen=True, slots=True)
class Calibrated:
    """How one voter's probabilities held: of the scores as they are, and as they are written.
    `by`: what was done in between, empty where nothing was. `note`: why it is not as asked."""

    voter: str
    temperature: float
    before: Calibration | None
    after: Calibration | None
    by: str = ""
    note: str = ""


@dataclass(frozen=True, slots=True)
class Rate:
    """Rows per second between two moments, in seconds since the start."""

    start: float
    end: float
    rows: float


@dataclass(frozen=True, slots=True)
class Report:
    """`made`: names and values of how it was made, in the order in which they are shown."""

    title: str
    findings: Findings
    calibrated: tuple[Calibrated, ...] = ()
    receipt: Receipt | None = None
    rates: tuple[Rate, ...] = ()
    made: Mapping[str, str] = field(default_factory=dict)
    template: str = ""
    system: str = ""


def report_of(
    output: Path,
    *,
    gold: str | None = None,
    task: Task | None = None,
    count: Count = lambda rows: None,
) -> Report:
    """Read an annotated table and, where there is one, the manifest beside it. `gold` and `task`
    count more than the manifest's."""
    from penstock.annotation.rounds.manifest import manifest_of
    from penstock.annotation.table.source import source_of
    from penstock.annotation.task.task import task_from

    manifest = manifest_of(output)
    if task is None and manifest is not None:
        task = task_from(manifest.task)
    source = source_of(output)
    layout = _layout(source, task, gold)
    findings = gather(source, layout, count)
    named = task is not None and "name" in task.model_fields_set
    title = task.name if task and named else output.name
    template, system = (task.template, task.system or "") if task else ("", "")
    if manifest is None:
        return Report(title, findings, template=template, system=system)
    return Report(
        title=title,
        findings=findings,
        calibrated=calibrated(manifest.calibration),
        receipt=manifest.receipt,
        rates=rates(manifest.history),
        made=_made(manifest),
        template=template,
        system=system,
    )


def calibrated(told: Mapping[str, Mapping[str, object]]) -> tuple[Calibrated, ...]:
    """Of the voters whose probabilities could be compared with gold rows."""
    found = []
    for voter, confidence in told.items():
        before, after = (_calibration(confidence.get(name)) for name in ("before", "after"))
        temperature = confidence.get("temperature")
        if before is not None or after is not None:
            known = float(temperature) if isinstance(temperature, int | float) else 1.0
            done = {CONTEXTUAL: bool(confidence.get("prior")), SCALING: known != 1.0}
            by = " and ".join(name for name, was in done.items() if was)
            note = confidence.get("note")
            found.append(Calibrated(voter, known, before, after, by, str(note or "")))
    return tuple(found)


def rates(history: tuple[tuple[float, int], ...]) -> tuple[Rate, ...]:
    """Throughput of a history of seconds and rows, in `MOST_POINTS` pieces at most."""
    if len(history) < 2 or history[-1][0] <= history[0][0]:
        return ()
    width = (history[-1][0] - history[0][0]) / MOST_POINTS
    kept = [history[0]]
    for point in history[1:]:
        if point[0] - kept[-1][0] >= width or point is history[-1]:
            kept.append(point)
    return tuple(
        Rate(start, end, max(0, after - before) / (end - start))
        for (start, before), (end, after) in pairwise(kept)
        if end > start
    )


def speed(rates: Iterable[Rate], start: float, end: float) -> float:
    """Rows per second between two moments, as a mean."""
    done = sum(each.rows * max(0.0, min(end, each.end) - max(start, each.start)) for each in rates)
    return done / (end - start)


def _layout(source: Source, task: Task | None, gold: str | None) -> Layout:
    table = source.read()
    rows = [record.row for record in islice(table, LOOKED_AT)]
    columns = list(table.columns) or list(dict.fromkeys(name for row in rows for name in row))
    layout = guessed(columns, gold, rows) if task is None else of_task(task, gold)
    layout.check(columns)
    return layout


def _calibration(told: object) -> Calibration | None:
    if told is None:
        return None
    try:
        return TypeAdapter(Calibration).validate_python(told)
    except ValidationError:
        return None  # of another version of the manifest


def _made(manifest: Manifest) -> dict[str, str]:
    made = {
        "Table": f"{manifest.source.name}, {manifest.source.rows:,} rows",
        "SHA-256 of the table": manifest.source.sha256,
        "Finished": f"{datetime.fromtimestamp(manifest.created, UTC):%Y-%m-%d %H:%M} UTC",
    }
    for voter, model in manifest.models.items():
        made[f"Model of {voter}" if len(manifest.models) > 1 else "Model"] = _model(model)
    if manifest.parent is not None:
        where = manifest.parent.where or "every row"
        again = f"{manifest.round}, after {manifest.parent.name}: {where}"
        # People's answers beside a table's are no round of their own.
        named = ("Round", again) if manifest.round > 1 else ("Gold added to", manifest.parent.name)
        made[named[0]] = named[1]
    seeds = [f"{voter}: {seed}" for voter, seed in manifest.seeds.items() if seed is not None]
    if seeds:
        made["Seeds"] = ", ".join(seeds)
    if manifest.versions:
        made["Versions"] = ", ".join(f"{name} {told}" for name, told in manifest.versions.items())
    made["Task"] = manifest.task_fingerprint
    return made


def _model(model: Model) -> str:
    told = (
        model.name,
        model.revision and f"revision {model.revision}",
        model.quantization,
        model.dtype,
        model.device_name or model.device,
        model.runner and f"{model.runner} runner",
    )
    return ", ".join(part for part in told if part)
