"""The page and the terminal: whole without gold or scores, harmless whatever the data says."""

from __future__ import annotations

import csv
import io
from dataclasses import asdict, replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
from rich.console import Console

from penstock.annotation.records import Receipt
from penstock.annotation.report.about import Report, calibrated, rates, report_of
from penstock.annotation.report.html import page, write_page
from penstock.annotation.report.terminal import show
from penstock.annotation.rounds.manifest import (
    Counts,
    Input,
    Manifest,
    Model,
    Output,
    manifest_path,
    write,
)
from penstock.annotation.task.task import Task, task_from
from penstock.annotation.trust.calibration import calibration
from penstock.errors import InvalidRequest

NASTY = "</td><script>alert('1')</script>\"'&{{ 7 * 7 }}<img src=x onerror=alert(1)>"
RECEIPT = Receipt(
    seconds=90.0,
    rows=40,
    prompt_tokens=4_000,
    completion_tokens=80,
    reused_rows=4,
    engine_seconds=60.0,
    padded_share=0.031,
    prefix_tokens=1_200,
    peak_memory=3 * 2**30,
    energy=7_200.0,
)
CAPTIONS = ("Before", "After (temperature 1.00)", "After (temperature 1.50)", "As scored")


class Reader(HTMLParser):
    """Collects elements, ids, and text."""

    VOID = frozenset({"meta", "link", "br", "img", "hr"})

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.text = ""
        self.open: list[str] = []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data

    def named(self, name: str) -> list[str | None]:
        return [value for key, value in self.attributes if key == name]


def write_table(path: Path, task: Task, rows: int = 40, *, label: str = "yes") -> Path:
    """An annotated table with votes, gold, failures, and a row of a megabyte."""
    added = [column.name for column in task.columns]
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, ["id", "text", "truth", *added], restval="")
        writer.writeheader()
        for place in range(rows):
            said = label if place % 3 else "no"
            cells = {
                "label": said,
                "probability": f"{0.5 + place / rows / 2:.4f}",
                "agreement": "0.5",
                "needs_review": "true" if place < 9 else "false",
                "prompt_tokens": "100",
                "completion_tokens": "2",
                **{name: said for name in added if name.startswith("label_")},
            }
            if place == 4:
                cells = {"error": NASTY, "needs_review": "true"}
            text = "y" * 1_000_000 if place == 1 else f"{NASTY} {place}"
            truth = label if place % 2 else ""
            writer.writerow({"id": place, "text": text, "truth": truth, **cells})
    return path


def write_manifest(output: Path, task: Task) -> None:
    pairs = [(0.9, place % 10 != 0) for place in range(40)]
    told = asdict(calibration(pairs))
    manifest = Manifest(
        created=1_700_000_000,
        source=Input(name=NASTY, sha256="ab" * 32, rows=40, columns=("id", "text", "truth")),
        output=Output(name=output.name, columns=tuple(column.name for column in task.columns)),
        task=task.model_dump(mode="json", exclude_defaults=True),
        task_fingerprint=task.fingerprint,
        models={NASTY: Model(name=NASTY, device_name="A device")},
        counts=Counts(rows=40),
        calibration={NASTY: {"temperature": 1.5, "before": told, "after": told}},
        receipt=RECEIPT,
        history=((0.0, 0), (30.0, 10), (60.0, 30), (90.0, 40)),
    )
    write(manifest_path(output), manifest)


@pytest.fixture(scope="module")
def nasty(tmp_path_factory: pytest.TempPathFactory) -> Report:
    task = task_from(
        None,
        name=NASTY,
        template="<script>{{ text }}</script>",
        system=NASTY,
        labels=["no", NASTY],
        gold="truth",
        votes={"samples": 2},
        mode="decode",
        temperature=1.0,
    )
    output = write_table(tmp_path_factory.mktemp("report") / "out.csv", task, label=NASTY)
    write_manifest(output, task)
    return report_of(output)


def test_whatever_the_data_says_stays_text(nasty: Report) -> None:
    seen = Reader(page(nasty))

    assert not {"script", "img", "iframe", "a", "link"} & set(seen.tags)
    assert not [name for name, _ in seen.attributes if name.startswith("on")]
    assert NASTY in seen.text
    assert "{{ text }}" in seen.text
    assert not seen.open


def test_the_page_needs_nothing_but_itself(nasty: Report) -> None:
    written = page(nasty)
    seen = Reader(written)

    assert not seen.named("src")
    assert not seen.named("href")
    assert "url(" not in written
    assert "@import" not in written
    assert "default-src 'none'; style-src 'unsafe-inline'" in seen.named("content")
    assert "prefers-color-scheme: dark" in written
    assert len(written) < 200_000  # the row of a megabyte is cut


def test_every_picture_says_what_it_shows(nasty: Report) -> None:
    seen = Reader(page(nasty))

    ids = seen.named("id")
    assert len(ids) == len(set(ids))
    named = [name for label in seen.named("aria-labelledby") if label for name in label.split()]
    assert named
    assert set(named) <= set(ids)
    assert seen.tags.count("svg") == seen.named("role").count("img") == seen.tags.count("desc") == 4


def test_every_part_is_there(nasty: Report) -> None:
    text = Reader(page(nasty)).text

    for part in (
        "Class balance",
        "Against gold",
        "Who is taken for whom",
        "Does a probability mean what it says?",
        "What looking at the least certain buys",
        "Krippendorff",
        "Not as gold",
        "Least certain",
        "Failed rows",
        "Throughput over time",
        "How it was made",
        "1 min 30 s",
        "2 Wh, 180 J a row",
        "3.1% of what was computed",
        "3.0 GiB",
    ):
        assert part in text, part


def test_the_terminal_says_the_same(nasty: Report) -> None:
    console = Console(file=io.StringIO(), width=200)
    show(nasty, console)
    shown = console.file.getvalue()  # type: ignore[attr-defined]

    assert "39 of 40 rows labeled; 1 failed." in shown
    parts = ("Class balance", "Against gold", "Cohen's kappa", "Failed rows", "Energy", "▄▄▄▇███")
    for part in parts:
        assert part in shown, part
    assert "x1b" not in shown


@pytest.mark.parametrize(
    ("changed", "sentence", "pictures"),
    [
        (
            {"temperature": 1.5},
            "is 0.300, 0.300 before temperature scaling (cross-validated on 20 gold rows",
            ["Before", "After (temperature 1.50)"],
        ),
        (
            {"temperature": 1.0, "note": "20 gold rows are too few."},
            "is 0.300 (on 20 gold rows; chance alone makes 0.054). 20 gold rows are too few.",
            ["As scored"],
        ),
        (
            {"temperature": 1.0, "prior": {"a": 0.5, "b": 0.5}},
            "is 0.300, 0.300 before contextual calibration (on 20 gold rows",
            ["Before", "After (temperature 1.00)"],
        ),
    ],
)
def test_says_what_was_done_to_the_probabilities_and_why_not(
    nasty: Report, changed: dict[str, object], sentence: str, pictures: list[str]
) -> None:
    told = asdict(calibration([(0.9, place % 5 < 3) for place in range(20)]))
    made = calibrated({"tiny": {"before": told, "after": told, **changed}})
    text = Reader(page(replace(nasty, calibrated=made))).text

    assert f"The expected calibration error {sentence}" in " ".join(text.split())
    assert [caption for caption in CAPTIONS if f"{caption} · ECE" in text] == pictures


@pytest.mark.parametrize(
    "lines",
    [
        "id,answer,needs_review\n1,Rome,false\n2,,\n",
        "id,label,needs_review,error\n",
        "id,label,needs_review,error\n1,,,\n",
        "id,label,needs_review,error\n1,yes,false,\n2,,true,broken\n",
        "label,probability\nyes,1.0\nno,0\nyes,nan\nno,often\n",
        'label,truth\n"[""a""]","a"\n"[]",b\n',
    ],
)
def test_a_table_that_has_little_is_shown_as_far_as_it_goes(tmp_path: Path, lines: str) -> None:
    output = tmp_path / "out.csv"
    output.write_text(lines)
    report = report_of(output, gold="truth" if "truth" in lines else None)

    write_page(report, tmp_path / "out.html")
    show(report, Console(file=io.StringIO()))

    assert not Reader((tmp_path / "out.html").read_text("utf-8")).open


def test_fields_are_shown_by_the_task_that_is_given(tmp_path: Path) -> None:
    schema = {"type": "object", "properties": {"year": {"type": "integer"}, "city": {}}}
    task = task_from(None, template="{{ text }}", fields=schema)
    output = tmp_path / "out.jsonl"
    output.write_text('{"text": "a", "year": 1999, "city": "Bonn", "needs_review": false}\n')

    text = Reader(page(report_of(output, task=task))).text

    assert "1 of 1 row filled in" in text
    assert "1999 to 1999" in text
    assert "Bonn" in text


def test_a_page_that_cannot_be_written_is_named(nasty: Report, tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match="not-there"):
        write_page(nasty, tmp_path / "not-there" / "out.html")


def test_throughput_is_kept_in_few_pieces_and_loses_no_row() -> None:
    history = tuple((float(second), 7 * second) for second in range(5_000))
    pieces = rates(history)

    assert len(pieces) <= 121
    assert sum(piece.rows * (piece.end - piece.start) for piece in pieces) == pytest.approx(34_993)
    assert rates(()) == rates(((1.0, 5),)) == rates(((1.0, 5), (1.0, 6))) == ()
