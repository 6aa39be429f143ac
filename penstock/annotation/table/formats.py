"""How a table is written down, by the endings of its name. Opens nothing."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from penstock.errors import InvalidRequest

ENDINGS = ".csv, .tsv, .jsonl, .ndjson (each also with .gz or .zst) or .parquet"


class Writing(StrEnum):
    """How rows are written."""

    CSV = "csv"
    JSONL = "jsonl"
    PARQUET = "parquet"


class Compression(StrEnum):
    """What is around it."""

    NONE = ""
    GZIP = ".gz"
    ZSTD = ".zst"


_WRITINGS = {
    ".csv": Writing.CSV,
    ".tsv": Writing.CSV,
    ".jsonl": Writing.JSONL,
    ".ndjson": Writing.JSONL,
    ".parquet": Writing.PARQUET,
}


@dataclass(frozen=True, slots=True)
class Format:
    """`delimiter` is None where the file itself tells."""

    writing: Writing
    compression: Compression = Compression.NONE
    delimiter: str | None = None

    @classmethod
    def of(cls, path: Path, param: str) -> Format:
        """Raises InvalidRequest for any other ending."""
        endings = [ending.lower() for ending in path.suffixes]
        around = Compression.NONE
        if endings and endings[-1] in (Compression.GZIP, Compression.ZSTD):
            around = Compression(endings.pop())
        writing = _WRITINGS.get(endings[-1]) if endings else None
        if writing is None:
            raise InvalidRequest(f"{path} has to end in {ENDINGS}.", param=param)
        if writing is Writing.PARQUET and around:
            raise InvalidRequest(
                f"{path}: a Parquet file is compressed inside; leave out {around}.", param=param
            )
        return cls(writing, around, "\t" if endings[-1] == ".tsv" else None)
