"""Which tokens each constrained row may have next. Knows no model and no sampling.

A grammar is compiled once for all rows that have it; each row walks through a copy of its own.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from llguidance import LLExecutor, LLMatcher, LLTokenizer
from numpy.typing import NDArray
from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerBase

from models.constraints import refused, start
from models.runner import Constraint

KEPT = 64  #: compiled grammars
NO_END = "<|this model has no end|>"  #: the end of answers of a model that has no token for it


class Grammars:
    """States of the constrained rows by slot. `vocabulary`: of the logits, which may have more or
    fewer tokens than the tokenizer; `ends`: tokens that end an answer, none for some models, whose
    answers end when nothing can follow. Calls of one thread."""

    def __init__(
        self, tokenizer: PreTrainedTokenizerBase, vocabulary: int, ends: frozenset[int]
    ) -> None:
        self._source: Any = tokenizer
        self._vocabulary = vocabulary
        self._ends = ends
        self._tokenizer: LLTokenizer | None = None  # made when first needed: it takes a second
        self._executor: LLExecutor | None = None
        self._compiled: OrderedDict[Constraint, LLMatcher] = OrderedDict()
        self._rows: dict[int, LLMatcher] = {}

    def admit(self, slot: int, constraint: Constraint) -> None:
        """Raises InvalidRequest for a constraint that cannot be met."""
        self._rows[slot] = self._compile(constraint).deep_copy()

    def release(self, slot: int) -> None:
        self._rows.pop(slot, None)

    def allowed(self, slots: Sequence[int], device: torch.device) -> torch.Tensor:
        """Which tokens may come next, [len(slots), V] bool: at least one of each row."""
        if self._tokenizer is None or self._executor is None:
            raise KeyError(slots)
        matchers = [self._rows[slot] for slot in slots]
        words = (self._tokenizer.vocab_size + 31) // 32
        masks = torch.zeros(len(slots), words, dtype=torch.int32)
        self._executor.unsafe_compute_mask_ptr(
            [(matcher, row) for row, matcher in enumerate(matchers)],
            masks.data_ptr(),
            words * 4,
            len(slots),
        )
        self._allow_ends(masks.numpy().view(np.uint8), matchers)
        return _bits(masks.to(device), self._vocabulary)

    def _allow_ends(self, masks: NDArray[np.uint8], matchers: Sequence[LLMatcher]) -> None:
        """An end token may be spelled like text, which is none of its meanings here."""
        ends = self._ends or (self._tokenizer.eos_tokens if self._tokenizer else ())
        places = [(end >> 3, 1 << (end & 7)) for end in ends if end >> 3 < masks.shape[1]]
        for mask, matcher in zip(masks, matchers, strict=True):
            if matcher.is_error():  # ends with its next token, for its length
                mask[:] = 255
            if not self._ends or not matcher.is_accepting():
                for byte, bit in places:
                    mask[byte] &= 255 ^ bit

    def accept(self, slots: Sequence[int], tokens: Sequence[int]) -> tuple[list[bool], list[bool]]:
        """Take each row's token. Returns which rows end with it, and which of them are complete:
        the others passed a limit of the parser."""
        complete, ended = [], []
        for slot, token in zip(slots, tokens, strict=True):
            matcher = self._rows[slot]
            valid = token in self._ends or matcher.consume_token(token)
            complete.append(valid and (token in self._ends or matcher.is_stopped()))
            ended.append(not valid or complete[-1])
        return ended, complete

    def _compile(self, constraint: Constraint) -> LLMatcher:
        matcher = self._compiled.pop(constraint, None)
        if matcher is None:
            matcher = start(constraint, self._prepare(constraint))
        self._compiled[constraint] = matcher
        if len(self._compiled) > KEPT:
            self._compiled.popitem(last=False)
        return matcher

    def _prepare(self, constraint: Constraint) -> LLTokenizer:
        """The tokenizer as llguidance wants it. Raises InvalidRequest for one that it does not
        take: then nothing is compiled for this model."""
        if self._tokenizer is None:
            try:
                self._tokenizer = _tokenizer(self._source, self._vocabulary, self._ends)
            except (ValueError, AttributeError) as error:
                why = "this model's tokenizer does not allow constraints"
                raise refused(constraint, why) from error
            self._executor = LLExecutor()
        return self._tokenizer


def _tokenizer(source: Any, vocabulary: int, ends: frozenset[int]) -> LLTokenizer:
    inner = Tokenizer.from_str(source.backend_tokenizer.to_str())
    inner.no_padding()
    inner.no_truncation()
    known = [end for end in ends if inner.id_to_token(end) is not None]
    if not known:
        inner.add_special_tokens([NO_END])
    names = inner.get_vocab(with_added_tokens=True)
    size = max(vocabulary, max(names.values()) + 1)
    return LLTokenizer(inner.to_str(), n_vocab=size, eos_token=known or names[NO_END])


def _bits(masks: torch.Tensor, vocabulary: int) -> torch.Tensor:
    """[C, W] words of 32 bits -> [C, V] bool."""
    places = torch.arange(8, dtype=torch.uint8, device=masks.device)
    bits = (masks.view(torch.uint8)[:, :, None] >> places) & 1
    allowed = bits.flatten(1)[:, :vocabulary].bool()
    missing = vocabulary - allowed.shape[1]
    return torch.nn.functional.pad(allowed, (0, missing)) if missing > 0 else allowed
