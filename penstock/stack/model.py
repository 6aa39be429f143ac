"""Which model a name means, looked at before anything starts. Loads nothing, asks no hub."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

from penstock.errors import StackError
from penstock.settings import FAKE_MODEL

CHECKOUT = Path(__file__).resolve().parents[2]
_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")


def resolve_model(name: str) -> str:
    """`fake`, an absolute path, or a hub name; what the checkout ships is found from anywhere."""
    if name == FAKE_MODEL:
        return name
    for path in (Path(name).expanduser(), CHECKOUT / name):
        if path.exists():
            return str(path.resolve())
    return name


def check_model(name: str) -> None:
    """Raises StackError where a resolved name cannot be served."""
    if name == FAKE_MODEL:
        return
    path = Path(name)
    if path.exists():
        if not (path / "config.json").is_file():
            raise StackError(f"{path} is no model: it has no config.json.")
    elif not _HUB_NAME.fullmatch(name) or Path(name.split("/")[0]).exists():
        raise StackError(
            f"There is no model at {name}; give a folder, or a hub name such as Qwen/Qwen3-0.6B."
        )
    if importlib.util.find_spec("torch") is None:
        raise StackError(
            "Models need torch: pip install 'penstock[engine]', or try --model fake without it."
        )


def is_local(name: str) -> bool:
    """Whether nothing needs to be downloaded."""
    return name == FAKE_MODEL or Path(name).exists()
