"""What is refused before anything is loaded: code that comes with a model, and pickled weights.
Torch-free; reads JSON files and file names alone."""

from __future__ import annotations

import json
from pathlib import Path

from penstock.errors import ModelError, UnsafeModel

CONFIGS = (
    "config.json",
    "tokenizer_config.json",
    "generation_config.json",
    "processor_config.json",
    "preprocessor_config.json",
)
PICKLED = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle")


def refuse_code(config: Path) -> None:
    """Raises UnsafeModel when a model's JSON file asks for Python code of its own (`auto_map`)."""
    if _asks_for_code(_read(config)):
        raise UnsafeModel(
            f"{config.name} asks for code that comes with the model (auto_map); "
            "Penstock runs models that transformers itself knows."
        )


def refuse_unsafe_folder(folder: Path) -> None:
    """Raises UnsafeModel for a folder with code or without safetensors."""
    for name in CONFIGS:
        if (folder / name).is_file():
            refuse_code(folder / name)
    names = [path.name for path in folder.iterdir()]
    if any(name.endswith(".safetensors") for name in names):
        return
    if any(name.endswith(PICKLED) for name in names):
        raise UnsafeModel(
            f"{folder.name} has its weights as pickle files, which can run code when they are "
            "read; convert them to safetensors."
        )
    raise ModelError(f"{folder.name} has no weights (no .safetensors file).")


def _read(config: Path) -> object:
    try:
        return json.loads(config.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ModelError(f"{config.name} is not JSON.") from error


def _asks_for_code(value: object) -> bool:
    """Nested too: a multimodal configuration holds those of its parts."""
    if isinstance(value, dict):
        return "auto_map" in value or any(_asks_for_code(part) for part in value.values())
    return isinstance(value, list) and any(_asks_for_code(part) for part in value)
