"""gzip and zstd: the same rows, the file's own checksum, and never half of it without a word."""

from __future__ import annotations

import gzip
import hashlib
from pathlib import Path

import pytest
import zstandard

from penstock.annotation.table.source import source_of
from penstock.errors import InvalidRequest
from tests.support.tables import pour, rows
from tests.unit.annotation.table.conftest import Write

CONTENT = b"id,text\n" + b"".join(b"%d,row %d\n" % (n, n * n) for n in range(5_000))
ZSTD = zstandard.ZstdCompressor(write_checksum=True)
PACKED = {"t.csv.gz": gzip.compress(CONTENT, mtime=0), "t.csv.zst": ZSTD.compress(CONTENT)}


@pytest.mark.parametrize("name", PACKED)
def test_rows_and_checksum_of_a_packed_file(write: Write, name: str) -> None:
    reading = source_of(write(name, PACKED[name])).read()

    found = [record.row for record in reading]

    assert (len(found), found[-1]) == (5_000, {"id": "4999", "text": f"row {4999 * 4999}"})
    assert reading.checksum == hashlib.sha256(PACKED[name]).hexdigest()


@pytest.mark.parametrize("pack", [("gz", gzip.compress), ("zst", ZSTD.compress)])
def test_frames_one_after_the_other_are_one_table(write: Write, pack: tuple[str, object]) -> None:
    ending, packed = pack
    assert callable(packed)

    found = rows(write(f"t.csv.{ending}", packed(b"a\n1\n") + packed(b"2\n")))

    assert found == [{"a": "1"}, {"a": "2"}]


@pytest.mark.parametrize("name", PACKED)
@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        (lambda whole: whole[:-5], "is damaged: it ends in the middle"),
        (lambda whole: whole[: len(whole) // 2], "is damaged: it ends in the middle"),
        (lambda whole: whole[:60] + bytes(60) + whole[120:], "t.csv"),
        (lambda whole: b"a,b\n1,2\n", "is damaged"),
    ],
    ids=["end", "half", "middle", "unpacked"],
)
def test_a_damaged_file_is_a_sentence(
    write: Write, name: str, damage: object, sentence: str
) -> None:
    assert callable(damage)
    path = write(name, damage(PACKED[name]))

    with pytest.raises(InvalidRequest) as caught:
        rows(path)

    assert sentence in caught.value.message
    assert str(path) in caught.value.message


@pytest.mark.parametrize("name", PACKED)
def test_what_is_written_is_packed_and_the_same_each_time(
    write: Write, tmp_path: Path, name: str
) -> None:
    plain = write("t.csv", CONTENT)

    once = pour(plain, tmp_path / f"out-{name}")
    again = pour(plain, tmp_path / f"out-{name}")

    assert once == again
    assert rows(tmp_path / f"out-{name}") == [one | {"label": "x"} for one in rows(plain)]
