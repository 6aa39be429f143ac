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
#: Keys by which a configuration has Python code fetched and run.
CODE = frozenset(
    {"auto_map", "attn_implementation", "_attn_implementation", "experts_implementation"}
)
PICKLED = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle")


def refuse_code(config: Path) -> None:
    """Raises UnsafeModel when a model's JSON file asks for code of its own (`auto_map`), or for a
    kernel of the hub (`attn_implementation`)."""
    if (key := _asks_for_code(_read(config))) is not None:
        raise UnsafeModel(
            f"{config.name} asks for code that comes with the model ({key}); "
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


def _asks_for_code(value: object) -> str | None:
    """The key that does. Nested too: a multimodal configuration holds those of its parts."""
    parts: list[object] = []
    if isinstance(value, dict):
        for key in CODE & value.keys():
            if key == "auto_map" or "/" in json.dumps(value[key]):  # a repository's name
                return str(key)
        parts = list(value.values())
    elif isinstance(value, list):
        parts = value
    return next((found for part in parts if (found := _asks_for_code(part)) is not None), None)
