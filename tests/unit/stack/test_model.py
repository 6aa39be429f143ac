"""What a model's name means, before anything starts."""

from __future__ import annotations

from pathlib import Path

import pytest

from penstock.errors import StackError
from penstock.settings import DEFAULT_MODEL
from penstock.stack.model import CHECKOUT, check_model, is_local, resolve_model


def test_the_default_is_found_from_anywhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)

    assert resolve_model(DEFAULT_MODEL) == str(CHECKOUT / DEFAULT_MODEL)


@pytest.mark.parametrize("name", ["fake", "Qwen/Qwen3-0.6B", "org/model.v2_x"])
def test_fake_and_hub_names_pass(name: str) -> None:
    check_model(resolve_model(name))


@pytest.mark.parametrize(
    "name", ["./missing", "~/missing", "/no/such", "../a/b", "a/b/c", "missing", "penstock/missing"]
)
def test_a_missing_path_is_a_sentence(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(CHECKOUT)

    with pytest.raises(StackError, match="There is no model at"):
        check_model(resolve_model(name))


def test_a_folder_without_a_model_is_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(StackError, match=r"no config\.json"):
        check_model(resolve_model(str(tmp_path)))


def test_only_a_hub_name_needs_a_download(tmp_path: Path) -> None:
    assert is_local("fake")
    assert is_local(str(tmp_path))
    assert not is_local("Qwen/Qwen3-0.6B")
