"""Random tiny models of several families, and the plain way to run them."""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast
from transformers.models.gemma2 import Gemma2Config
from transformers.models.gpt2 import GPT2Config
from transformers.models.llama import LlamaConfig
from transformers.models.mistral import MistralConfig
from transformers.models.qwen3 import Qwen3Config

from models.padded import PaddedRunner
from models.runner import FinishReason, ModelInfo, Row, SamplingParams, StepPlan

VOCABULARY = 160
CONTEXT = 128
ENDS = [7, 11, 13]  #: end-of-sequence tokens: several, so that rows end at different times
WINDOW = 8  #: of the sliding attention: shorter than most prompts

_SIZES: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "max_position_embeddings": CONTEXT,
    "initializer_range": 0.4,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": ENDS,
    "tie_word_embeddings": False,
}

CONFIGS: Mapping[str, Any] = {
    "llama": LlamaConfig(**_SIZES),
    "qwen3": Qwen3Config(**_SIZES),
    "mistral": MistralConfig(**_SIZES, sliding_window=WINDOW),
    "gemma2": Gemma2Config(**_SIZES, sliding_window=WINDOW, query_pre_attn_scalar=16),
    "gpt2": GPT2Config(
        vocab_size=VOCABULARY,
        n_embd=32,
        n_layer=2,
        n_head=4,
        n_positions=CONTEXT,
        initializer_range=0.4,
        bos_token_id=1,
        eos_token_id=ENDS,
    ),
}


def tokenizer() -> PreTrainedTokenizerFast:
    """One word for each token, so that text tells which tokens there were."""
    words = {"<pad>": 0, "<s>": 1, **{f"w{number}": number for number in range(2, VOCABULARY)}}
    inner = Tokenizer(WordLevel(words, unk_token="<s>"))
    inner.pre_tokenizer = WhitespaceSplit()
    fast: Any = PreTrainedTokenizerFast
    made: PreTrainedTokenizerFast = fast(
        tokenizer_object=inner, pad_token="<pad>", bos_token="<s>", model_max_length=CONTEXT
    )
    return made


def model(family: str, seed: int = 0) -> Any:
    torch.manual_seed(seed)
    auto: Any = AutoModelForCausalLM
    made = auto.from_config(CONFIGS[family], dtype=torch.float32)
    made.eval()
    return made


def runner(made: Any, context: int = CONTEXT) -> PaddedRunner:
    info = ModelInfo("tiny", 0, 0, "cpu", "fp32", context, "padded")
    return PaddedRunner(made, tokenizer(), info)


def prompts(count: int, seed: int = 1, longest: int = 30) -> list[tuple[int, ...]]:
    source = random.Random(seed)
    return [
        tuple(source.randrange(14, VOCABULARY) for _ in range(source.randint(1, longest)))
        for _ in range(count)
    ]


def greedy(id: str, prompt: tuple[int, ...], max_tokens: int = 20, **params: Any) -> Row:
    return Row(id, prompt, SamplingParams(max_tokens=max_tokens, temperature=0, **params))


def generated(made: Any, row: Row) -> list[int]:
    """The tokens of `generate` for one prompt, run alone."""
    ids = torch.tensor([row.prompt])
    out = made.generate(
        ids,
        attention_mask=torch.ones_like(ids),
        do_sample=False,
        max_new_tokens=row.sampling.max_tokens,
        repetition_penalty=row.sampling.repetition_penalty,
        pad_token_id=0,
    )
    tokens: list[int] = out[0, len(row.prompt) :].tolist()
    return tokens


def alone(made: Any, row: Row) -> str:
    """The same as text, without the end-of-sequence token."""
    tokens = [token for token in generated(made, row) if token not in ENDS]
    return str(tokenizer().decode(tokens, skip_special_tokens=True))


class Driver:
    """Steps micro-batches to their end and collects what their rows say."""

    def __init__(self, made: PaddedRunner) -> None:
        self.runner = made
        self.texts: dict[str, str] = {}
        self.finishes: dict[str, FinishReason] = {}
        self.steps: dict[str, int] = {}
        self.read: list[tuple[int, int]] = []

    def step(self, plan: StepPlan) -> int:
        """Returns how many rows go on."""
        output = self.runner.step(plan)
        self.read.append((output.tokens_read, output.tokens_needed))
        for step in output.rows:
            assert step.id not in self.finishes
            self.texts[step.id] = self.texts.get(step.id, "") + step.text
            self.steps[step.id] = self.steps.get(step.id, 0) + 1
            if step.finish is not None:
                self.finishes[step.id] = step.finish
        return sum(step.finish is None for step in output.rows)

    def run(self, rows: Iterable[Row], number: int = 1) -> dict[str, str]:
        go_on = self.step(StepPlan(number, admit=tuple(rows)))
        while go_on:
            go_on = self.step(StepPlan(number))
        return self.texts
