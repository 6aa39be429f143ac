"""Models are loaded as asked, or refused with one sentence."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from models.device import best_device, choose_device
from models.environment import names_hub_model
from models.loader import LoadOptions, context_length, load
from models.runner import Row, SamplingParams
from penstock.errors import ModelError, ModelNotFound, UnsafeModel
from tests.unit.models.tiny import (
    CONTEXT,
    VOCABULARY,
    Driver,
    alone,
    greedy,
    model,
    prompts,
    tokenizer,
)


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "tiny-llama"
    model("llama").save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    return folder


@pytest.fixture
def folder(saved: Path, tmp_path: Path) -> Path:
    """A copy that a test may spoil."""
    return Path(shutil.copytree(saved, tmp_path / saved.name))


def change(path: Path, **fields: Any) -> None:
    known = json.loads(path.read_text()) if path.exists() else {}
    path.write_text(json.dumps({**known, **fields}))


@pytest.mark.parametrize("quantization", ["int4", "int8", "fp16", "bf16", "fp32"])
def test_each_quantization_loads_answers_and_tells_what_it_is(
    saved: Path, quantization: Any
) -> None:
    runner = load(LoadOptions(str(saved), quantization=quantization, device="cpu"))
    info = runner.info
    assert info.quantization == quantization
    assert (info.device, info.context, info.runner) == ("cpu", CONTEXT, "padded")
    assert info.parameters == sum(p.numel() for p in model("llama").parameters())
    full = info.parameters * 4
    assert (info.memory_bytes >= full) == (quantization == "fp32")
    rows = [greedy(f"r{number}", prompt, 5) for number, prompt in enumerate(prompts(4))]
    driver = Driver(runner)
    driver.run(rows)
    assert all(driver.texts.values())


@pytest.mark.parametrize("quantization", ["int8", "fp32"])
def test_neighbors_do_not_change_a_row(saved: Path, quantization: Any) -> None:
    runner = load(LoadOptions(str(saved), quantization=quantization, device="cpu"))
    rows = [greedy(f"r{number}", prompt, 12) for number, prompt in enumerate(prompts(6))]
    together = Driver(runner).run(rows)
    assert together == {row.id: Driver(runner).run([row], 2)[row.id] for row in rows}


def test_fp32_answers_as_the_model_that_was_saved(saved: Path) -> None:
    runner = load(LoadOptions(str(saved), device="cpu"))
    row = greedy("r", prompts(1)[0])
    assert runner.info.quantization == "fp32"
    assert Driver(runner).run([row])["r"] == alone(model("llama"), row)


def test_int4_can_be_unpacked_once_at_load(saved: Path) -> None:
    packed = load(LoadOptions(str(saved), quantization="int4", device="cpu"))
    dense = load(LoadOptions(str(saved), quantization="int4", device="cpu", dense=True))
    assert dense.info.parameters == packed.info.parameters
    assert dense.info.memory_bytes > packed.info.memory_bytes
    assert dense.info.notes
    row = greedy("r", prompts(1)[0], 6)
    assert Driver(dense).run([row]) == Driver(packed).run([row])


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFound, match="nowhere"):
        load(LoadOptions(str(tmp_path / "nowhere")))


def test_a_folder_without_a_model_and_a_file_are_named(folder: Path) -> None:
    with pytest.raises(ModelNotFound, match="is a file"):
        load(LoadOptions(str(folder / "config.json")))
    (folder / "config.json").unlink()
    with pytest.raises(ModelNotFound, match=r"no config\.json"):
        load(LoadOptions(str(folder)))


@pytest.mark.parametrize("name", ["config.json", "tokenizer_config.json"])
@pytest.mark.parametrize("depth", ["top", "nested"])
def test_a_model_that_brings_code_is_refused(folder: Path, name: str, depth: str) -> None:
    asks = {"auto_map": {"AutoConfig": "evil.Config", "AutoTokenizer": ["evil.Tokenizer", None]}}
    change(folder / name, **(asks if depth == "top" else {"text_config": [asks]}))
    (folder / "evil.py").write_text("raise SystemExit('the code of the model ran')")
    with pytest.raises(UnsafeModel, match="auto_map"):
        load(LoadOptions(str(folder)))


def test_pickled_weights_are_refused_and_never_read(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(b"cos\nsystem\n(S'touch pwned'\ntR.")
    with pytest.raises(UnsafeModel, match="pickle"):
        load(LoadOptions(str(folder)))


def test_broken_files_are_one_sentence(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes(b"\xff" * 100)
    with pytest.raises(ModelError, match="cannot be loaded"):
        load(LoadOptions(str(folder), device="cpu"))
    (folder / "model.safetensors").unlink()
    with pytest.raises(ModelError, match="no weights"):
        load(LoadOptions(str(folder), device="cpu"))
    (folder / "config.json").write_text("{")
    with pytest.raises(ModelError, match="not JSON"):
        load(LoadOptions(str(folder), device="cpu"))


def test_an_architecture_that_transformers_does_not_know_is_one_sentence(folder: Path) -> None:
    change(folder / "config.json", model_type="unheard-of", architectures=["UnheardOf"])
    with pytest.raises(ModelError, match="cannot be loaded"):
        load(LoadOptions(str(folder), device="cpu"))


def test_devices_that_are_not_there_are_named() -> None:
    with pytest.raises(ModelError, match="abacus"):
        choose_device("abacus")
    with pytest.raises(ModelError, match="cuda:99"):
        choose_device("cuda:99")
    assert choose_device("cpu").type == "cpu"
    assert best_device().type == ("cuda" if torch.cuda.is_available() else "cpu")


def test_the_context_is_the_least_that_makes_sense() -> None:
    made = model("gpt2")
    words = tokenizer()
    assert context_length(made.config, words) == CONTEXT
    words.model_max_length = 64
    assert context_length(made.config, words) == 64
    words.model_max_length = 10**30
    assert context_length(made.config, words) == CONTEXT


def test_only_a_name_of_the_hub_s_form_that_is_not_here_means_the_hub(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "assets").mkdir()
    monkeypatch.chdir(tmp_path)
    assert names_hub_model("Qwen/Qwen3-0.6B")
    assert not names_hub_model("assets")
    assert not names_hub_model("assets/no-such-model")
    assert not names_hub_model("no-such-model")
    assert not names_hub_model(str(tmp_path / "no-such-model"))


def test_a_process_prepared_without_the_hub_loads_offline_and_quietly(saved: Path) -> None:
    program = (
        "from models.environment import prepare_environment\n"
        "prepare_environment(hub_allowed=False)\n"
        "from models.loader import LoadOptions, load\n"
        f"print(load(LoadOptions({str(saved)!r}, quantization='int8', threads=1)).info.parameters)"
    )
    environment = {key: value for key, value in os.environ.items() if not key.startswith("HF_")}
    command = [sys.executable, "-W", "error", "-c", program]
    done = subprocess.run(
        command, capture_output=True, timeout=100, check=False, env=environment, text=True
    )
    assert done.stderr == ""
    assert int(done.stdout) > VOCABULARY


def test_the_model_in_the_repository_answers(request: pytest.FixtureRequest) -> None:
    runner = load(LoadOptions(str(request.config.rootpath / "assets" / "penstock-tiny")))
    prompt = runner.codec.encode_chat([("user", "What does json.dumps do?")])
    row = Row("r", prompt, SamplingParams(max_tokens=40, temperature=0))
    driver = Driver(runner)
    assert driver.run([row])["r"].strip()
    assert driver.steps["r"] <= 40
