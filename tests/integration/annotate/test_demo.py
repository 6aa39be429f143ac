"""The demo as `make demo` runs it, on the fake model: what it shows, and that nothing is left."""

from __future__ import annotations

import csv
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from examples.stdlib.stack import CHECKOUT
from examples.stdlib.topics import LABELS
from penstock.annotation.rounds.manifest import load, manifest_path

pytestmark = pytest.mark.slow


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where the demo makes its temporary directory; other accounts may pass through it."""
    for parent in (tmp_path, tmp_path.parent, tmp_path.parent.parent):
        parent.chmod(0o755)
    made = tmp_path / "t"
    made.mkdir()
    return made


@pytest.fixture
def demo(tmp_path: Path, folder: Path) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, "-m", "examples.stdlib.demo", "--rows", "40", "--model", "fake"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(CHECKOUT), "TMPDIR": str(folder)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    yield process
    if process.poll() is None:
        process.terminate()
    process.communicate(timeout=90)


def read_until(process: subprocess.Popen[str], pattern: str) -> tuple[str, re.Match[str]]:
    """All output up to the line with `pattern`."""
    assert process.stdout is not None
    seen = ""
    for line in process.stdout:
        seen += line
        if match := re.search(pattern, line):
            return seen, match
    raise AssertionError(f"no {pattern!r} in:\n{seen}")


def test_the_demo_shows_addresses_answers_and_figures_and_leaves_nothing(
    demo: subprocess.Popen[str], tmp_path: Path, folder: Path
) -> None:
    before, worker = read_until(demo, r"kill -9 (\d+)")
    rest, _ = demo.communicate(timeout=100)

    assert demo.returncode == 0, rest
    assert re.search(r"API +http://127\.0\.0\.1:\d+/docs", before)
    assert re.search(r"Flower +http://127\.0\.0\.1:\d+", before)
    for shown in ("40 of 40 rows", "gold rows", "Krippendorff", "What it cost", "shutil.copytree"):
        assert shown in rest
    output = tmp_path / "demo-output"
    assert (output / "demo.png").read_bytes().startswith(b"\x89PNG")
    assert "<svg" in (output / "report.html").read_text()
    assert load(manifest_path(output / "labelled.csv")).counts.rows == 40
    with (output / "labelled.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 40
    assert {row["label"] for row in rows} <= set(LABELS)
    assert not psutil.pid_exists(int(worker[1]))
    assert list(folder.iterdir()) == []


def test_an_interrupted_demo_leaves_nothing(
    demo: subprocess.Popen[str], tmp_path: Path, folder: Path
) -> None:
    _, worker = read_until(demo, r"kill -9 (\d+)")

    demo.send_signal(signal.SIGINT)
    rest, _ = demo.communicate(timeout=90)

    assert demo.returncode == 130
    assert "Interrupted; nothing is left running." in rest
    assert not psutil.pid_exists(int(worker[1]))
    assert list(folder.iterdir()) == []


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's help is Linux's")
def test_a_killed_demo_leaves_nothing_running(demo: subprocess.Popen[str]) -> None:
    _, worker = read_until(demo, r"kill -9 (\d+)")
    stack = psutil.Process(demo.pid).children()
    tree = [child for process in stack for child in (process, *process.children(recursive=True))]

    demo.kill()
    _, alive = psutil.wait_procs(tree, timeout=60)

    assert int(worker[1]) in {process.pid for process in tree}
    assert alive == []
