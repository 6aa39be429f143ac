"""Greedy answers of the tiny model through plain transformers, batched by length.

Knows how to load and ask; knows neither rows nor figures.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol, cast

import torch
from torch import Tensor
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedTokenizerFast,
)

BATCH = 64


class _Generates(Protocol):
    def generate(
        self, inputs: Tensor, *, attention_mask: Tensor, max_new_tokens: int, do_sample: bool
    ) -> Tensor: ...


class Answerer:
    """One loaded model, in fp32 on the CPU."""

    def __init__(self, path: Path) -> None:
        model = AutoModelForCausalLM.from_pretrained(
            path, dtype=torch.float32, local_files_only=True
        )
        self._model = cast(_Generates, model)
        self._tokenizer = cast(
            PreTrainedTokenizerFast, AutoTokenizer.from_pretrained(path, local_files_only=True)
        )

    def answer(self, prompts: Sequence[str], max_tokens: int) -> list[str]:
        """The new text for each prompt, in order."""
        chats = [
            cast(
                str,
                self._tokenizer.apply_chat_template(
                    [{"role": "user", "content": prompt}],
                    tokenize=False,
                    add_generation_prompt=True,
                ),
            )
            for prompt in prompts
        ]
        order = sorted(range(len(chats)), key=lambda index: len(chats[index]))
        answers: dict[int, str] = {}
        for start in range(0, len(order), BATCH):
            indices = order[start : start + BATCH]
            texts = self._batch([chats[index] for index in indices], max_tokens)
            answers.update(zip(indices, texts, strict=True))
        return [answers[index] for index in range(len(chats))]

    def _batch(self, chats: list[str], max_tokens: int) -> list[str]:
        inputs = self._tokenizer(chats, return_tensors="pt", padding=True, add_special_tokens=False)
        ids, mask = cast(Tensor, inputs["input_ids"]), cast(Tensor, inputs["attention_mask"])
        with torch.inference_mode():
            output = self._model.generate(
                ids, attention_mask=mask, max_new_tokens=max_tokens, do_sample=False
            )
        new = output[:, ids.shape[1] :]  # [B, new tokens]
        texts: list[str] = self._tokenizer.batch_decode(new, skip_special_tokens=True)
        return [text.strip() for text in texts]
