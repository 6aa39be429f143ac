"""Random tiny models of many families: those that run packed, and those that must not; and the
packed way to run them, with the least of a scheduler."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM

from models.answers import Answers
from models.codec import TokenizerCodec
from models.packed.model import PackedModel
from models.packed.runner import PackedRunner
from models.packed.store import Store
from models.packed.torch_attention import attend
from models.runner import Chunk, ModelInfo, Place, Region, Row, StepPlan
from models.sampling import Sampler
from tests.unit.models.tiny import CONTEXT, ENDS, SIZES, VOCABULARY, WINDOW, tokenizer

_SIZES = {**SIZES, "initializer_range": 0.3}
_HEADS = {key: value for key, value in _SIZES.items() if key != "head_dim"}
_LARGE = {**_SIZES, "head_dim": 32}  # heads that a compiled layer turns and stores in one pass
_OLD: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "n_embd": 64,
    "n_layer": 2,
    "n_head": 4,
    "n_positions": CONTEXT,
    "initializer_range": 0.3,
    "bos_token_id": 1,
    "eos_token_id": ENDS,
}
_LONGROPE = {
    "rope_type": "longrope",
    "rope_theta": 10_000.0,
    "short_factor": [1.0] * 8,
    "long_factor": [4.0] * 8,
    "original_max_position_embeddings": CONTEXT // 2,
}

PACKED: Mapping[str, tuple[str, dict[str, Any]]] = {
    "llama": ("llama", _LARGE),
    "qwen2": ("qwen2", _HEADS),
    "qwen3": ("qwen3", _SIZES),
    "mistral": ("mistral", {**_LARGE, "sliding_window": WINDOW}),
    "gemma2": ("gemma2", {**_SIZES, "sliding_window": WINDOW, "query_pre_attn_scalar": 16}),
    "gemma3": (
        "gemma3_text",
        {
            **_SIZES,
            "sliding_window": WINDOW,
            "query_pre_attn_scalar": 16,
            "layer_types": ["sliding_attention", "full_attention"],
        },
    ),
    "phi3": ("phi3", _HEADS),
    "olmo2": ("olmo2", _HEADS),
    "mixtral": ("mixtral", {**_HEADS, "num_local_experts": 4, "num_experts_per_tok": 2}),
    "glm": ("glm", _SIZES),
    "granite": ("granite", _HEADS),
    "cohere": ("cohere", _HEADS),
    "smollm3": ("smollm3", {**_HEADS, "no_rope_layers": [1, 0]}),
    "starcoder2": ("starcoder2", {**_HEADS, "sliding_window": WINDOW}),
    "gpt2": ("gpt2", _OLD),
    "gpt_neox": ("gpt_neox", {**_HEADS, "rotary_pct": 0.5}),
    "opt": ("opt", {**_HEADS, "ffn_dim": 128, "word_embed_proj_dim": 64}),
}

PADDED: Mapping[str, tuple[str, dict[str, Any]]] = {
    "falcon": ("falcon", _HEADS),
    "falcon-alibi": ("falcon", {**_HEADS, "alibi": True}),
    "bloom": ("bloom", {**_HEADS, "n_head": 4, "n_layer": 2}),
    "gptj": ("gptj", {**_OLD, "rotary_dim": 8}),
    "gpt_oss": (
        "gpt_oss",
        {**_SIZES, "sliding_window": WINDOW, "num_local_experts": 4, "num_experts_per_tok": 2},
    ),
    "phi3-longrope": (
        "phi3",
        {
            **_HEADS,
            "rope_parameters": _LONGROPE,
            "original_max_position_embeddings": CONTEXT // 2,
        },
    ),
}


def model(family: str, seed: int = 0, **changed: Any) -> Any:
    """The same weights for the same seed."""
    kind, sizes = {**PACKED, **PADDED}[family]
    torch.manual_seed(seed)
    auto: Any = AutoModelForCausalLM
    config = AutoConfig.for_model(kind, **copy.deepcopy({**sizes, **changed}))
    made = auto.from_config(config, dtype=torch.float32)
    return made.eval()


def saved(family: str, folder: Path, seed: int = 0, **changed: Any) -> str:
    """A folder that the loader can read."""
    model(family, seed, **changed).save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    return str(folder)


def packed(made: Any, slots: int = 8) -> PackedRunner:
    """Run packed, without a probe, as plainly as it can be. `slots` rows of any length fit."""
    ready = PackedModel(made, attend)
    positions, ends, cpu = slots * CONTEXT, frozenset(ENDS), torch.device("cpu")
    return PackedRunner(
        ready,
        Store(ready.layers, positions + 1, cpu),
        Sampler(slots, VOCABULARY, cpu, ends, None),
        Answers(slots, tokenizer(), ends),
        TokenizerCodec(tokenizer()),
        ModelInfo("tiny", 0, 0, "cpu", "fp32", CONTEXT, "packed", kv_tokens=positions),
        slots,
    )


class Packer:
    """The least of a scheduler: each row has its own stretch of the arena, and reads its prompt in
    chunks of `budget` tokens a step. Collects what rows say."""

    def __init__(self, runner: Any, budget: int = 16, stretch: int = CONTEXT) -> None:
        self.runner = runner
        self.texts: dict[str, str] = {}
        self.scores: dict[str, tuple[float, ...]] = {}
        self._budget = budget
        self._stretch = stretch
        self._free = list(range(runner.info.kv_tokens // stretch))
        self._homes: dict[str, int] = {}
        self._left: dict[str, int] = {}
        self._new: list[tuple[Row, Place]] = []

    @property
    def busy(self) -> bool:
        return bool(self._homes)

    def add(self, row: Row, prefix: Region | None = None) -> Region:
        """Returns where the row will be."""
        home = self._homes[row.id] = self._free.pop(0)
        own = Region(home * self._stretch, self._stretch)
        place = Place(own, prefix)
        self._left[row.id] = len(row.prompt) - place.known
        self._new.append((row, place))
        return own

    def step(self) -> None:
        chunks, budget = [], self._budget
        for id, left in list(self._left.items()):
            tokens = min(left, budget)
            if tokens:
                chunks.append(Chunk(id, tokens))
                self._left[id] -= tokens
                budget -= tokens
        new, self._new = self._new, []
        rows, places = tuple(row for row, _ in new), tuple(place for _, place in new)
        for said in self.runner.step(StepPlan(rows, places, tuple(chunks))).rows:
            self.texts[said.id] = self.texts.get(said.id, "") + said.text
            if said.finish is not None:
                self.scores[said.id] = said.scores
                del self._left[said.id]
                self._free.append(self._homes.pop(said.id))

    def run(self, rows: Sequence[Row] = ()) -> dict[str, str]:
        for row in rows:
            self.add(row)
        while self.busy:
            self.step()
        return self.texts
