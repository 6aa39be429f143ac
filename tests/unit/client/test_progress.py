"""Where the bar shows: at a terminal, in a notebook, and nowhere else."""

from __future__ import annotations

import sys
import types

import pytest

from penstock.client import Client


class ZMQInteractiveShell:
    """What a notebook's kernel calls its shell."""


def in_notebook(monkeypatch: pytest.MonkeyPatch) -> None:
    shell = types.ModuleType("IPython")
    shell.get_ipython = ZMQInteractiveShell  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "IPython", shell)


def test_no_bar_where_nobody_looks(client: Client, capfd: pytest.CaptureFixture[str]) -> None:
    client.submit(["a"]).wait(30)

    assert capfd.readouterr() == ("", "")


def test_a_bar_at_a_terminal_and_none_when_it_is_not_wanted(
    client: Client, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setenv("TERM", "xterm")
    job = client.submit(["a", "b"])

    job.wait(30)
    shown = capsys.readouterr().err
    job.wait(30, progress=False)

    assert "2/2" in shown
    assert capsys.readouterr().err == ""


def test_a_notebook_has_its_own_bar(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    in_notebook(monkeypatch)
    bars: list[Bar] = []

    class Bar:
        def __init__(self, **options: object) -> None:
            self.n = 0
            self.total = 0
            self.closed = False
            bars.append(self)

        def update(self, steps: int) -> None:
            self.n += steps

        def close(self) -> None:
            self.closed = True

    notebook = types.ModuleType("tqdm.notebook")
    notebook.tqdm = Bar  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "tqdm.notebook", notebook)

    client.submit(["a", "b"]).wait(30)

    [bar] = bars
    assert (bar.n, bar.total, bar.closed) == (2, 2, True)


def test_a_notebook_without_tqdm_waits_without_a_bar(
    client: Client, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    in_notebook(monkeypatch)
    monkeypatch.setitem(sys.modules, "tqdm.notebook", None)

    client.submit(["a"]).wait(30)

    assert capfd.readouterr() == ("", "")
