"""The library is built once, by whoever comes first, or cleanly not at all."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from models.native import attention, build, library, linear, speedups
from tests.unit.models.native.test_speedups import build as build_model


@pytest.fixture
def fresh(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Path]:
    """An empty cache, and a process that has not looked for the library."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv(build.SWITCH, raising=False)
    library.library.cache_clear()
    yield tmp_path
    library.library.cache_clear()


def test_nothing_is_loaded_when_turned_off(fresh: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(build.SWITCH, "0")
    assert attention.load() is None
    assert not list(fresh.rglob("*.so"))


def test_nothing_is_loaded_without_a_compiler(fresh: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    assert attention.load() is None
    with pytest.raises(build.BuildError, match=r"no g\+\+"):
        build.build()


def test_linear_layers_are_packed_without_a_compiler(
    fresh: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(linear, "WORTH_BLAS", float("inf"))  # which would be left as they are
    assert library.library() is not None  # what was timed with it is of no use without
    speedups.apply(build_model("llama", torch.float32))
    library.library.cache_clear()
    monkeypatch.setenv("PATH", "")
    assert speedups.apply(build_model("llama", torch.float32)) == [
        "2 feed-forward layers in fewer calls",
        "5 norms in fewer calls",
        "2 decoder layers in fewer calls",
        "1 linear layers laid out",
    ]


def test_a_compiler_that_fails_is_told_and_leaves_nothing(
    fresh: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    tools = tmp_path / "tools"
    tools.mkdir()
    compiler = tools / "g++"
    compiler.write_text(
        "#!/bin/sh\n[ $1 = --version ] && exit\necho 'error: out of luck' >&2\nexit 1\n"
    )
    compiler.chmod(0o700)
    monkeypatch.setenv("PATH", f"{tools}:/bin:/usr/bin")
    with pytest.raises(build.BuildError, match="out of luck"):
        build.build()
    assert attention.load() is None
    assert not list(fresh.rglob("*.so"))


def test_a_cache_that_others_can_write_to_is_not_used(
    fresh: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = fresh / "penstock" / "native"
    folder.mkdir(parents=True)
    folder.chmod(0o777)
    monkeypatch.setattr("tempfile.tempdir", str(fresh))
    assert folder not in build.build().parents


def test_several_processes_build_at_once(fresh: Path) -> None:
    code = (
        "from models.native.attention import load; from models.native.library import openmp;"
        "assert load() is not None; print(len(openmp()))"
    )
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    running = [
        subprocess.Popen([sys.executable, "-c", code], env=environment, stdout=subprocess.PIPE)
        for _ in range(3)
    ]
    told = [process.communicate(timeout=100)[0].split()[-1] for process in running]
    assert told == [b"1"] * 3  # one OpenMP runtime: torch's
    assert [process.returncode for process in running] == [0] * 3
    made = list((fresh / "penstock" / "native").iterdir())
    assert [path.suffix for path in made] == [".so"]
