"""Hashes of a model's weights: of every byte, and of nothing else."""

from __future__ import annotations

import hashlib
from pathlib import Path

from models.weights import PIECE, folder_of, hashes


def test_every_file_of_weights_has_the_hash_of_all_its_bytes(tmp_path: Path) -> None:
    large = b"a" * (PIECE + 1)
    (tmp_path / "model-1.safetensors").write_bytes(large)
    (tmp_path / "model-2.safetensors").write_bytes(b"")
    (tmp_path / "config.json").write_text("{}")

    assert hashes(tmp_path, lambda: False) == {
        "model-1.safetensors": hashlib.sha256(large).hexdigest(),
        "model-2.safetensors": hashlib.sha256().hexdigest(),
    }
    assert hashes(tmp_path, lambda: True) is None


def test_a_model_without_files_has_no_folder(tmp_path: Path) -> None:
    assert folder_of(str(tmp_path), "any") == tmp_path
    assert folder_of("fake-model-of-nobody", "") is None
