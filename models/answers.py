"""Sampled tokens to what rows say: text, why they ended, log-probabilities. Knows no model.

Tokens are kept in one array by slot. A row's text is decoded once, at its end; only rows that
stream or have stop texts are looked at token by token.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from models.detokenize import Detokenizer
from models.pieces import Pieces
from models.runner import FinishReason, Row, RowStep, TokenLogprob
from models.sampling import Logprobs, Sampled

CAPACITY = 64  #: tokens of an answer that there is room for at first


@dataclass(slots=True)
class _Answer:
    """One row. `detokenizer`: of a row that is looked at token by token. `held`: its text until
    now, when it is wanted as a whole."""

    row: Row
    detokenizer: Detokenizer | None
    held: list[str] = field(default_factory=list)
    logprobs: list[TokenLogprob] = field(default_factory=list)


class Answers:
    """The answers of all slots."""

    def __init__(self, slots: int, tokenizer: Any, ends: frozenset[int]) -> None:
        self._tokenizer = tokenizer
        self._pieces = Pieces(tokenizer)
        self._ends = ends
        self._answers: list[_Answer | None] = [None] * slots
        self._tokens = np.zeros((slots, CAPACITY), dtype=np.int32)
        self._counts = np.zeros(slots, dtype=np.int64)
        self._live = np.zeros(slots, dtype=np.bool_)
        self._watched = np.zeros(slots, dtype=np.bool_)

    def admit(self, slot: int, row: Row, limit: int) -> None:
        """Take a row. `limit`: the most tokens it may have."""
        watched = row.stream or bool(row.sampling.stop)
        detokenizer = Detokenizer(self._decode, row.sampling.stop) if watched else None
        self._answers[slot] = _Answer(row, detokenizer)
        self._counts[slot] = 0
        self._live[slot] = True
        self._watched[slot] = watched

    def release(self, slots: Sequence[int]) -> None:
        """Forget the rows of these slots. Idempotent."""
        for slot in slots:
            self._answers[slot] = None
            self._live[slot] = False

    def collect(self, slots: torch.Tensor, sampled: Sampled) -> tuple[list[RowStep], list[int]]:
        """What the rows in `slots` [B] have to say, and the slots of those that ended now. Slots
        without a row are skipped. Raises FloatingPointError for an output that was not a number.
        """
        flags = sampled.ended + 2 * sampled.complete + 4 * sampled.broken
        order, tokens, said = torch.stack((slots, sampled.tokens, flags)).cpu().numpy()
        if (said & 4).any():
            raise FloatingPointError("the model's output is not a number")
        live = self._live[order]
        counts = self._counts[order]
        if len(order) and int(counts.max()) >= self._tokens.shape[1]:
            self._tokens = np.concatenate((self._tokens, np.zeros_like(self._tokens)), axis=1)
        self._tokens[order, counts] = tokens
        self._counts[order] = counts + live
        if sampled.logprobs is not None:
            self._note_logprobs(sampled.logprobs, order, tokens)
        steps: list[RowStep] = []
        over: list[int] = []
        talking = live & (self._watched[order] | (said > 0))
        for at in np.flatnonzero(talking).tolist():
            slot = int(order[at])
            step = self._tell(slot, int(tokens[at]), int(said[at]))
            if step.text or step.finish is not None:
                steps.append(step)
            if step.finish is not None:
                over.append(slot)
        self._live[over] = False
        return steps, over

    def _tell(self, slot: int, token: int, said: int) -> RowStep:
        """What a row says that is looked at token by token, or that ends."""
        answer = self._answer(slot)
        is_end = token in self._ends
        finish = None
        if said:
            finish = FinishReason.STOP if is_end or said & 2 else FinishReason.LENGTH
        if answer.detokenizer is None:
            text = self._decode(self._history(slot))
        else:
            text = "" if is_end else answer.detokenizer.push(token)
            if finish is not None:
                text += answer.detokenizer.finish()
            if answer.detokenizer.stopped:
                finish = FinishReason.STOP
            if not answer.row.stream:
                answer.held.append(text)
                text = "".join(answer.held) if finish is not None else ""
        if finish is None:
            return RowStep(answer.row.id, text)
        count = int(self._counts[slot])
        return RowStep(answer.row.id, text, finish, count, tuple(answer.logprobs))

    def _history(self, slot: int) -> list[int]:
        """The tokens of an answer, without the one that ended it."""
        tokens: list[int] = self._tokens[slot, : self._counts[slot]].tolist()
        return tokens[:-1] if tokens[-1] in self._ends else tokens

    def _note_logprobs(
        self, found: Logprobs, order: NDArray[np.int64], tokens: NDArray[np.int64]
    ) -> None:
        chosen, top, named = found.chosen.tolist(), found.top.tolist(), found.top_tokens.tolist()
        for at, row in enumerate(found.rows.tolist()):
            slot, token = int(order[row]), int(tokens[row])
            if not self._live[slot] or token in self._ends:
                continue
            answer = self._answer(slot)
            most = answer.row.sampling.logprobs or 0
            best = zip(named[at][:most], top[at][:most], strict=True)
            alternatives = tuple((self._pieces[token], value) for token, value in best)
            answer.logprobs.append(TokenLogprob(self._pieces[token], chosen[at], alternatives))

    def _answer(self, slot: int) -> _Answer:
        answer = self._answers[slot]
        if answer is None:
            raise KeyError(slot)
        return answer

    def _decode(self, ids: list[int]) -> str:
        text: str = self._tokenizer.decode(
            ids, skip_special_tokens=True, clean_up_tokenization_spaces=False
        )
        return text
