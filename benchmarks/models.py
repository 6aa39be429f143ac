"""The two models of the CPU benchmark as folders without an end token, so that every answer has
exactly the length that was asked for: a random Llama made here, and the committed small model."""

from __future__ import annotations

import json
import shutil
import sysconfig
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

COMMITTED = Path("assets/penstock-tiny")
CONTEXT = 1024
VOCABULARY = 32_000
CORPUS_BYTES = 12_000_000
#: Where a folder says which token ends an answer.
ENDS = {
    "tokenizer_config.json": "eos_token",
    "generation_config.json": "eos_token_id",
    "config.json": "eos_token_id",
}
PAD = "<|pad|>"
TEMPLATE = "{% for message in messages %}{{ message['content'] }}\n{% endfor %}"


@dataclass(frozen=True, slots=True)
class BenchModel:
    """A folder that every contender loads."""

    name: str
    folder: Path
    vocabulary: int

    def encode(self, text: str) -> list[int]:
        tokenizer = Tokenizer.from_file(str(self.folder / "tokenizer.json"))
        ids: list[int] = tokenizer.encode(text, add_special_tokens=False).ids
        return ids


def random_llama(folder: Path) -> BenchModel:
    """About 40 M parameters; made once, the same everywhere."""
    model = BenchModel("random-40m", folder / "random-40m", VOCABULARY)
    if not (model.folder / "tokenizer.json").exists():
        torch.manual_seed(0)
        config = LlamaConfig(
            vocab_size=VOCABULARY,
            hidden_size=512,
            intermediate_size=1408,
            num_hidden_layers=8,
            num_attention_heads=8,
            num_key_value_heads=4,
            head_dim=64,
            max_position_embeddings=CONTEXT,
            tie_word_embeddings=True,
            bos_token_id=None,
            eos_token_id=None,
        )
        made: Any = LlamaForCausalLM(config)
        made.generation_config = _endless()
        made.save_pretrained(model.folder)
        _tokenizer().save_pretrained(model.folder)
    return model


def committed(folder: Path) -> BenchModel:
    """A copy of the small model that never ends by itself."""
    model = BenchModel("penstock-tiny", folder / "penstock-tiny", 4096)
    if not model.folder.exists():
        shutil.copytree(COMMITTED, model.folder, dirs_exist_ok=True)
        for name, key in ENDS.items():
            path = model.folder / name
            path.write_text(json.dumps({**json.loads(path.read_text()), key: None}))
    return model


def _endless() -> GenerationConfig:
    return GenerationConfig(do_sample=False, eos_token_id=None, pad_token_id=0)  # type: ignore[no-untyped-call]


def _tokenizer() -> Any:
    """Every id of the vocabulary is a piece of text: learned from Python's own library."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=[PAD, *(f"<|{n}|>" for n in range(15))],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_corpus(), trainer)
    maker: Any = PreTrainedTokenizerFast
    fast = maker(tokenizer_object=tokenizer, pad_token=PAD, model_max_length=CONTEXT)
    fast.chat_template = TEMPLATE
    return fast


def _corpus() -> list[str]:
    texts, size = [], 0
    for path in sorted(Path(sysconfig.get_paths()["stdlib"]).glob("**/*.py")):
        if "site-packages" in path.parts or "test" in path.parts:
            continue
        texts.append(path.read_text(encoding="utf-8", errors="ignore"))
        size += len(texts[-1])
        if size > CORPUS_BYTES:
            break
    return texts
