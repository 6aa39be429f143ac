"""The manifest of an annotation: all that it takes to run it again, in a file beside the output.

Knows what a manifest says and where it lies; asks no service and reads no table.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from penstock.annotation.files import unfinished, writing
from penstock.annotation.records import Receipt
from penstock.errors import InvalidRequest

SUFFIX = ".manifest.json"
PIECE = 1 << 20  # bytes read at a time


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())


class Input(_Part):
    """The table that was annotated. `name`: its path, seen from the manifest's folder."""

    name: str
    sha256: str
    rows: int
    columns: tuple[str, ...]


class Output(_Part):
    """The table that was written. `columns`: those that the annotation added."""

    name: str
    sha256: str | None = None
    columns: tuple[str, ...]


class Model(_Part):
    """Who answered, as the service told it; None where it did not."""

    name: str
    revision: str | None = None
    weights: dict[str, str] | None = Field(default=None, description="SHA-256 by file.")
    quantization: str | None = None
    dtype: str | None = None
    device: str | None = None
    device_name: str | None = None
    runner: str | None = None
    context: int | None = None


class Counts(_Part):
    """Rows by what became of them. `right`: of those with gold."""

    rows: int
    failed: int = 0
    review: int = 0
    gold: int = 0
    right: int = 0


class Parent(_Part):
    """The round before. `where`: the rows that this round asked again about; None: all."""

    name: str  #: of its output, seen from the manifest's folder
    sha256: str  #: of its manifest
    where: str | None = None


class Manifest(_Part):
    """One run. `task` is the whole task, as `task_from` takes it; what is told by voter has the
    voter's name for a key. `created` in seconds since 1970, `history` in seconds and rows done."""

    version: Literal[1] = 1
    round: int = 1
    created: float
    source: Input
    output: Output
    task: dict[str, object]
    task_fingerprint: str
    models: dict[str, Model]
    versions: dict[str, str] = {}
    seeds: dict[str, int | None] = {}
    counts: Counts
    calibration: dict[str, dict[str, object]] = {}
    agreement: dict[str, object] | None = None
    receipt: Receipt | None = None
    history: tuple[tuple[float, int], ...] = ()
    jobs: tuple[str, ...] = ()
    parent: Parent | None = None


def manifest_path(output: Path) -> Path:
    """Where the manifest of an output lies: `out.csv.manifest.json`."""
    return output.with_name(output.name + SUFFIX)


def output_path(manifest: Path) -> Path:
    """The output that a manifest lies beside. Raises InvalidRequest for another kind of name."""
    if not manifest.name.endswith(SUFFIX):
        raise InvalidRequest(
            f"{manifest} is no manifest: its name has to end in {SUFFIX}.", param="manifest"
        )
    return manifest.with_name(manifest.name.removesuffix(SUFFIX))


def beside(path: Path, output: Path) -> str:
    """`path` as the manifest of `output` calls it: both may move together."""
    return Path(os.path.relpath(path.absolute(), output.absolute().parent)).as_posix()


def checksum(path: Path) -> str:
    """SHA-256 of a file, hexadecimal, read in pieces."""
    found = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(PIECE):
            found.update(piece)
    return found.hexdigest()


def write(path: Path, manifest: Manifest) -> None:
    """Write it to `path`, complete or not at all."""
    fresh = unfinished(path)
    with writing(path):
        try:
            fresh.write_text(manifest.model_dump_json(indent=1) + "\n", encoding="utf-8")
            fresh.replace(path)
        finally:
            fresh.unlink(missing_ok=True)


def load(path: Path) -> Manifest:
    """Read it. Raises InvalidRequest naming the file, and the key of what is wrong."""
    try:
        return Manifest.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        raise InvalidRequest(f"{path} does not exist.", param="manifest") from None
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise InvalidRequest(f"{path} cannot be read: {reason}.", param="manifest") from None
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        key = ".".join(str(part) for part in first["loc"])
        where = f"{key}: " if key else ""
        raise InvalidRequest(
            f"{path} is no manifest of an annotation: {where}{first['msg']}.", param="manifest"
        ) from None


def manifest_of(output: Path) -> Manifest | None:
    """The manifest beside `output`; None where there is none."""
    path = manifest_path(output)
    return load(path) if path.exists() else None
