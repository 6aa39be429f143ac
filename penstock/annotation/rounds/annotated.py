"""An annotated table with its manifest, unchanged since it was written. Writes nothing."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from penstock.annotation.records import Source
from penstock.annotation.rounds.manifest import Manifest, checksum, load, manifest_path
from penstock.annotation.rounds.view import columns_of
from penstock.annotation.table.source import source_of
from penstock.annotation.task.task import Task, task_from
from penstock.errors import InvalidRequest


@dataclass(frozen=True, slots=True)
class Annotated:
    """`input_columns`: all but those that the annotation added, so also a gold column of later."""

    path: Path
    source: Source
    manifest: Manifest
    task: Task
    columns: tuple[str, ...]

    @property
    def input_columns(self) -> tuple[str, ...]:
        added = set(self.manifest.output.columns)
        return tuple(name for name in self.columns if name not in added)

    @property
    def input_path(self) -> Path:
        """Where the table that was annotated lay."""
        return self.path.parent / self.manifest.source.name


def annotated(path: Path) -> Annotated:
    """Raises InvalidRequest without a manifest, and for a table that changed since it."""
    source = source_of(path)
    beside = manifest_path(path)
    if not beside.exists():
        raise InvalidRequest(
            f"{path} has no manifest beside it ({beside.name}), so that it is not known "
            "which of its columns are answers, and to what.",
            param="table",
        )
    manifest = load(beside)
    if manifest.output.sha256 not in (None, checksum(path)):
        raise InvalidRequest(
            f"{path} has changed since it was written; restore it, or annotate it anew.",
            param="table",
        )
    return Annotated(path, source, manifest, task_from(manifest.task), columns_of(source))
