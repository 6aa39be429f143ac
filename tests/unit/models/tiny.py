"""Random tiny models of several families with their tokenizer, prompts and rows, and the plain way
to run them."""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping
from dataclasses import replace
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

from models.choices import choice_tree
from models.padded import PaddedRunner
from models.runner import (
    Chunk,
    FinishReason,
    ModelInfo,
    Place,
    Region,
    Row,
    RowStep,
    Runner,
    SamplingParams,
    StepOutput,
    StepPlan,
)

VOCABULARY = 160
CONTEXT = 128
ENDS = [7, 11, 13]  #: end-of-sequence tokens: several, so that rows end at different times
WINDOW = 8  #: of the sliding attention: shorter than most prompts

SIZES: dict[str, Any] = {
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
    "llama": LlamaConfig(**SIZES),
    "qwen3": Qwen3Config(**SIZES),
    "mistral": MistralConfig(**SIZES, sliding_window=WINDOW),
    "gemma2": Gemma2Config(**SIZES, sliding_window=WINDOW, query_pre_attn_scalar=16),
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
    """Runs rows to their end on a runner of either kind, and collects what they say. `steps` are
    those in which a row sampled. A packed runner's rows live one behind the other in its arena."""

    def __init__(self, made: Runner, chunk: int = 16) -> None:
        self.runner = made
        self.texts: dict[str, str] = {}
        self.said: dict[str, list[str]] = {}
        self.ended: dict[str, RowStep] = {}
        self.outputs: list[StepOutput] = []
        self._packed = made.info.runner != "padded"
        self._chunk = chunk
        self._next = 0
        self._unread: dict[str, int] = {}
        self._live: dict[int, set[str]] = {}

    @property
    def finishes(self) -> dict[str, FinishReason | None]:
        return {id: step.finish for id, step in self.ended.items()}

    @property
    def steps(self) -> dict[str, int]:
        return {id: step.tokens for id, step in self.ended.items()}

    @property
    def read(self) -> list[tuple[int, int]]:
        return [(output.tokens_read, output.tokens_needed) for output in self.outputs]

    def step(self, plan: StepPlan) -> int:
        """Returns how many rows go on."""
        live = self._live.setdefault(plan.micro_batch, set())
        live |= {row.id for row in plan.admit}
        live -= set(plan.drop)
        output = self.runner.step(self._complete(plan) if self._packed else plan)
        self.outputs.append(output)
        for step in output.rows:
            assert step.id in live
            assert step.text or step.finish is not None
            self.said.setdefault(step.id, []).append(step.text)
            self.texts[step.id] = self.texts.get(step.id, "") + step.text
            if step.finish is not None:
                self.ended[step.id] = step
                live.discard(step.id)
        return len(live)

    def run(self, rows: Iterable[Row], number: int = 1) -> dict[str, str]:
        go_on = self.step(StepPlan(tuple(rows), micro_batch=number))
        while go_on:
            go_on = self.step(StepPlan(micro_batch=number))
        return self.texts

    def _complete(self, plan: StepPlan) -> StepPlan:
        """Places for new rows, and the next tokens of all prompts."""
        places = []
        for row in plan.admit:
            nodes = len(choice_tree(row.choices).tokens)
            room = len(row.prompt) + nodes + row.sampling.max_tokens
            places.append(Place(Region(self._next, room)))
            self._next += room
            self._unread[row.id] = len(row.prompt)
        for id in plan.drop:
            self._unread.pop(id, None)
        chunks = tuple(Chunk(id, min(left, self._chunk)) for id, left in self._unread.items())
        left = {chunk.id: self._unread[chunk.id] - chunk.tokens for chunk in chunks}
        self._unread = {id: tokens for id, tokens in left.items() if tokens}
        return replace(plan, places=tuple(places), chunks=chunks)
