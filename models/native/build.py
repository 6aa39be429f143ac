"""Builds the C++ of this folder once for each user, CPU and compiler, in seconds, and keeps it in
the user's cache. Knows no tensor and not what the code does."""

from __future__ import annotations

import hashlib
import os
import platform
import shutil
import stat
import subprocess
import tempfile
from pathlib import Path

import torch

SWITCH = "PENSTOCK_NATIVE"  #: environment variable; 0: nothing is built or loaded
SOURCES = Path(__file__).parent
FLAGS = (
    "-std=c++17",
    "-O3",
    "-march=native",
    "-fopenmp",
    "-fno-math-errno",
    "-fPIC",
    "-shared",
    "-Wno-psabi",
)
TIMEOUT_S = 180.0


class BuildError(Exception):
    """Raised when there is no library for this machine; the message says why."""


def build() -> Path:
    """The path of the library, compiled now when there is none yet. Several processes may build at
    once: each writes a file of its own, and the last one to rename it wins."""
    if os.environ.get(SWITCH, "1") == "0":
        raise BuildError(f"{SWITCH} is 0")
    if platform.system() != "Linux":
        raise BuildError(f"not made for {platform.system()}")
    compiler = shutil.which("g++")
    if compiler is None:
        raise BuildError("there is no g++")
    folder = _cache()
    library = folder / f"native-{_key(compiler)}.so"
    if not library.exists():
        _compile(compiler, library)
    return library


def _compile(compiler: str, library: Path) -> None:
    sources = [str(path) for path in sorted(SOURCES.glob("*.cpp"))]
    with tempfile.TemporaryDirectory(dir=library.parent, prefix="build-") as folder:
        made = Path(folder) / library.name
        _run([compiler, *FLAGS, *sources, "-o", str(made)])
        made.replace(library)


def _key(compiler: str) -> str:
    """Changes with whatever the library depends on."""
    digest = hashlib.sha256()
    for path in sorted((*SOURCES.glob("*.cpp"), *SOURCES.glob("*.h"))):
        digest.update(path.name.encode() + b"\0" + path.read_bytes())
    for part in (*FLAGS, _run([compiler, "--version"]), _cpu(), torch.__version__):
        digest.update(part.encode() + b"\0")
    return digest.hexdigest()[:20]


def _cpu() -> str:
    """The machine and what its CPU can do; `-march=native` depends on nothing else."""
    wanted = ("flags", "features", "model name", "cpu family", "model\t")
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return "\n".join(
        [platform.machine(), *sorted({x for x in lines if x.lower().startswith(wanted)})]
    )


def _run(command: list[str]) -> str:
    environment = {**os.environ, "LC_ALL": "C"}
    try:
        done = subprocess.run(
            command,
            check=False,
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
            env=environment,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise BuildError(f"{command[0]} does not run: {error}") from error
    if done.returncode != 0:
        reason = next((x for x in done.stderr.splitlines() if "error" in x), done.stderr[-200:])
        raise BuildError(f"{command[0]} fails: {reason.strip()}")
    return done.stdout


def _cache() -> Path:
    """A folder that nobody else can write to: what is in it gets loaded."""
    home = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    for folder in (
        Path(home) / "penstock" / "native",
        Path(tempfile.gettempdir()) / f"penstock-native-{os.getuid()}",
    ):
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError:
            continue
        status = folder.stat()
        private = not status.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
        if status.st_uid == os.getuid() and private and os.access(folder, os.W_OK):
            return folder
    raise BuildError("there is no cache folder that is this user's alone")
