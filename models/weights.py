"""Which files a model's weights are, and what is in them, byte for byte. Torch-free."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Final

WEIGHTS: Final = "*.safetensors"
PIECE: Final = 1 << 20  # bytes read at once


def folder_of(name: str, revision: str) -> Path | None:
    """Where the files of a model lie that was loaded: its own folder, or a commit's in the hub's
    cache. None: it has no files."""
    folder = Path(name).expanduser()
    if folder.is_dir():
        return folder
    if not revision:
        return None
    from huggingface_hub import try_to_load_from_cache

    config = try_to_load_from_cache(name, "config.json", revision=revision)
    return Path(config).parent if isinstance(config, str) else None


def hashes(folder: Path, stopping: Callable[[], bool]) -> dict[str, str] | None:
    """SHA-256 by the name of a file, hexadecimal; None where it was told to stop."""
    found = {}
    for path in sorted(folder.glob(WEIGHTS)):
        digest = hashlib.sha256()
        with path.open("rb") as file:
            while piece := file.read(PIECE):
                if stopping():
                    return None
                digest.update(piece)
        found[path.name] = digest.hexdigest()
    return found
