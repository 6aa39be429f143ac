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

from models import host
from models.device import best_device, choose_device
from models.environment import names_hub_model
from models.loader import LoadOptions, context_length, load
from models.packed.runner import PackedRunner
from models.padded import PaddedRunner
from models.quantization import DTYPES, compute_dtype, pays_dense
from models.runner import Row, SamplingParams
from penstock.errors import ModelError, ModelNotFound, UnsafeModel
from tests.unit.models.families import Packer, model, saved
from tests.unit.models.tiny import CONTEXT, VOCABULARY, alone, greedy, prompts, tokenizer

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Path(saved("llama", tmp_path_factory.mktemp("models") / "tiny-llama"))


@pytest.fixture
def folder(tiny: Path, tmp_path: Path) -> Path:
    """A copy that a test may spoil."""
    return Path(shutil.copytree(tiny, tmp_path / tiny.name))


def change(path: Path, **fields: Any) -> None:
    known = json.loads(path.read_text()) if path.exists() else {}
    path.write_text(json.dumps({**known, **fields}))


@pytest.mark.parametrize("quantization", ["int4", "int8", "fp16", "bf16", "fp32"])
def test_each_quantization_loads_answers_and_tells_what_it_is(
    tiny: Path, quantization: Any
) -> None:
    runner = load(LoadOptions(str(tiny), quantization=quantization, device="cpu", dense=False))
    info = runner.info
    assert info.quantization == quantization
    assert (info.device, info.context, info.runner) == ("cpu", CONTEXT, "packed")
    assert info.parameters == sum(p.numel() for p in model("llama").parameters())
    full = info.parameters * 4
    dtype = compute_dtype(quantization, CPU)
    assert (DTYPES[info.dtype], info.device_name) == (dtype, host.cpu_name())
    assert (info.memory_bytes >= full) == (dtype is torch.float32 and quantization != "int8")
    rows = [greedy(f"r{number}", prompt, 5) for number, prompt in enumerate(prompts(4))]
    assert all(Packer(runner).run(rows).values())


def test_a_type_that_this_cpu_is_slow_with_is_replaced_and_named(tiny: Path) -> None:
    dtype = compute_dtype("fp16", CPU)
    wanted = torch.bfloat16 if host.cpu_is_fast("bf16") else torch.float32
    assert dtype is (torch.float16 if host.cpu_is_fast("fp16") else wanted)
    notes = load(LoadOptions(str(tiny), quantization="fp16", device="cpu")).info.notes
    assert any("computes in" in note for note in notes) == (dtype is not torch.float16)
    assert compute_dtype("int8", CPU) is compute_dtype("fp32", CPU) is torch.float32
    assert compute_dtype("int4", CPU) is wanted


def test_fp32_answers_as_the_model_that_was_saved(tiny: Path) -> None:
    runner = load(LoadOptions(str(tiny), device="cpu"))
    row = greedy("r", prompts(1)[0])
    assert runner.info.quantization == "fp32"
    assert Packer(runner).run([row])["r"] == alone(model("llama"), row)


def test_int4_can_be_unpacked_once_at_load(tiny: Path) -> None:
    packed = load(LoadOptions(str(tiny), quantization="int4", device="cpu", dense=False))
    dense = load(LoadOptions(str(tiny), quantization="int4", device="cpu", dense=True))
    assert dense.info.parameters == packed.info.parameters
    assert dense.info.memory_bytes > packed.info.memory_bytes
    assert "int4 weights unpacked at load" in dense.info.notes
    assert "int4 weights unpacked at load" not in packed.info.notes
    row = greedy("r", prompts(1)[0], 6)
    assert Packer(dense).run([row])["r"]


def test_int4_is_unpacked_by_itself_only_where_it_pays_and_fits() -> None:
    made = model("llama").to(torch.bfloat16)  # as large unpacked as it is
    assert pays_dense(made, torch.bfloat16, CPU, free=0)
    assert not pays_dense(made, torch.float32, CPU, free=10**9)  # no faster on a CPU
    cuda, size = torch.device("cuda"), sum(p.numel() for p in made.parameters())
    assert pays_dense(made, torch.float32, cuda, free=4 * size)  # it grows by half of that
    assert not pays_dense(made, torch.float32, cuda, free=3 * size)


def test_limits_that_were_asked_for_are_kept_and_told(tiny: Path) -> None:
    options = LoadOptions(str(tiny), device="cpu", max_rows=3, express_rows=2, kv_tokens=300)
    info = load(options).info
    assert (info.max_rows, info.kv_tokens) == (3, 300)
    assert any("3 rows at once, keys and values of 300 tokens" in note for note in info.notes)


def test_a_row_can_be_no_longer_than_the_memory_for_keys_and_values(folder: Path) -> None:
    change(folder / "config.json", max_position_embeddings=4096)
    change(folder / "tokenizer_config.json", model_max_length=4096)
    assert load(LoadOptions(str(folder), device="cpu", kv_tokens=300)).info.context == 300
    with pytest.raises(ModelError, match="one row needs 256"):
        load(LoadOptions(str(folder), device="cpu", kv_tokens=200))


def test_a_model_that_cannot_run_packed_is_padded_and_says_why(tmp_path: Path) -> None:
    folder = saved("gpt_oss", tmp_path / "oss")
    runner = load(LoadOptions(folder, device="cpu"))
    assert isinstance(runner, PaddedRunner)
    assert runner.info.notes == ("runs padded: its attention takes s_aux",)
    with pytest.raises(ModelError, match="cannot be run packed: its attention takes s_aux"):
        load(LoadOptions(folder, device="cpu", runner="packed"))


def test_the_padded_runner_can_be_asked_for(tiny: Path) -> None:
    runner = load(LoadOptions(str(tiny), device="cpu", runner="padded"))
    assert (type(runner), runner.info.runner) == (PaddedRunner, "padded")
    packed = load(LoadOptions(str(tiny), device="cpu", runner="packed"))
    assert (type(packed), packed.info.runner) == (PackedRunner, "packed")


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


@pytest.mark.parametrize("key", ["attn_implementation", "_attn_implementation"])
def test_a_model_that_asks_for_a_kernel_of_the_hub_is_refused(folder: Path, key: str) -> None:
    change(folder / "config.json", **{key: {"": "evil/kernel@main:attention"}})
    with pytest.raises(UnsafeModel, match=key):
        load(LoadOptions(str(folder)))
    change(folder / "config.json", **{key: "sdpa"})
    load(LoadOptions(str(folder), device="cpu"))


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


def test_a_process_prepared_without_the_hub_loads_offline_and_quietly(tiny: Path) -> None:
    program = (
        "from models.environment import prepare_environment\n"
        "prepare_environment(hub_allowed=False)\n"
        "from models.loader import LoadOptions, load\n"
        f"print(load(LoadOptions({str(tiny)!r}, quantization='int8', threads=1)).info.parameters)"
    )
    environment = {key: value for key, value in os.environ.items() if not key.startswith("HF_")}
    command = [sys.executable, "-W", "error", "-c", program]
    done = subprocess.run(
        command, capture_output=True, timeout=100, check=False, env=environment, text=True
    )
    assert done.stderr == ""
    assert int(done.stdout.splitlines()[-1]) > VOCABULARY


def test_the_model_in_the_repository_answers(request: pytest.FixtureRequest) -> None:
    runner = load(LoadOptions(str(request.config.rootpath / "assets" / "penstock-tiny")))
    prompt = runner.codec.encode_chat([("user", "What does json.dumps do?")])
    row = Row("r", prompt, SamplingParams(max_tokens=40, temperature=0))
    packer = Packer(runner, budget=100, stretch=runner.info.context)
    assert packer.run([row])["r"].strip()


def test_names_that_a_chat_template_looks_at_are_set_for_it(tiny: Path, tmp_path: Path) -> None:
    folder = tmp_path / "thinks"
    shutil.copytree(tiny, folder)
    (folder / "chat_template.jinja").write_text(
        "{{ messages[0].content }}{% if think is defined and not think %} {{ mark }}{% endif %}"
    )
    asked: dict[str, str | bool] = {"think": False, "mark": 'at "once"'}

    told = load(LoadOptions(str(folder), device="cpu", template_args={**asked})).codec
    untold = load(LoadOptions(str(folder), device="cpu")).codec

    assert told.encode_chat([("user", "hi")]) == untold.encode_chat([("user", 'hi at "once"')])
