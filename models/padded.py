"""Left-padded micro-batches on transformers' own cache: for every causal LM, and the reference
that a faster runner is compared with. Decides nothing: it runs the plans it is given."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from models.answers import Answers
from models.choices import choice_tree
from models.codec import TokenizerCodec
from models.device import is_out_of_memory
from models.grammar import Grammars
from models.runner import FinishReason, ModelInfo, Purpose, Row, RowStep, StepOutput, StepPlan
from models.sampling import Sampler
from models.scoring import choice_scores
from penstock.errors import OutOfMemory

#: Finished rows stay in the tensors until they are this share of them: leaving costs a copy.
DEAD_SHARE = 0.25
PAD = 0  #: any token will do: the mask hides it
SCORE_TOKENS = 8_192  #: of one forward that scores labels, unless one label needs more


class _Padded(NamedTuple):
    """Texts side by side: their ends are in the last column."""

    tokens: torch.Tensor  # [B, T]
    mask: torch.Tensor  # [B, T], 0 where a pad is
    positions: torch.Tensor  # [B, T], of each token in its own text


@dataclass(slots=True)
class _MicroBatch:
    """The rows of the tensors are those of `slots`, in that order; a slot is a row's number at
    admission. `lengths`: tokens that each slot has in the cache, pads not counted."""

    live: dict[str, int]  # id to slot
    sampler: Sampler
    answers: Answers
    lengths: NDArray[np.int64]  # [slots]
    slots: NDArray[np.int64]  # [B]
    on_device: torch.Tensor  # [B]: the same
    cache: Any  # transformers' own
    mask: torch.Tensor  # [B, T]: which columns of the cache are not pads
    positions: torch.Tensor  # [B, 1]: of the last token read
    tokens: torch.Tensor  # [B]: the last of each row, not read yet

    def leave(self, slots: Sequence[int]) -> None:
        """These rows are over; they still step until they are taken out of the tensors."""
        self.sampler.release(slots)
        self.answers.release(slots)
        over = set(slots)
        self.live = {id: slot for id, slot in self.live.items() if slot not in over}


class PaddedRunner:
    """Prefills a micro-batch left-padded, then decodes it a token a step. Calls of one thread."""

    def __init__(
        self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, info: ModelInfo
    ) -> None:
        self._model: Any = model
        self._tokenizer = tokenizer
        self._info = info
        self._codec = TokenizerCodec(tokenizer)
        self._device = torch.device(model.device)
        self._ends = end_tokens(model, tokenizer)
        self._grammars: Grammars | None = None  # made with the first micro-batch
        self._live: dict[int, _MicroBatch] = {}
        self._keeps = "logits_to_keep" in inspect.signature(model.forward).parameters

    @property
    def info(self) -> ModelInfo:
        return self._info

    @property
    def codec(self) -> TokenizerCodec:
        return self._codec

    def step(self, plan: StepPlan) -> StepOutput:
        try:
            with torch.inference_mode():
                return self._prefill(plan) if plan.admit else self._decode(plan)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
        # Out here the failed step's tensors are no longer held by the error's traceback.
        self.forget(plan.micro_batch)
        if self._device.type == "cuda":
            torch.cuda.empty_cache()
        raise OutOfMemory

    def forget(self, micro_batch: int) -> None:
        self._live.pop(micro_batch, None)

    def _prefill(self, plan: StepPlan) -> StepOutput:
        rows = [row for row in plan.admit if row.purpose is Purpose.GENERATE]
        scored = [row for row in plan.admit if row.purpose is Purpose.SCORE]
        steps: list[RowStep] = []
        read = needed = 0
        for row in scored:
            scores, computed, wanted = self._score(row)
            steps.append(RowStep(row.id, finish=FinishReason.STOP, scores=scores))
            read, needed = read + computed, needed + wanted
        if rows:
            padded = _pad([row.prompt for row in rows], self._device)
            logits, cache = self._forward(*padded, None)
            batch = self._start(rows, padded, cache, logits.shape[-1])
            self._live[plan.micro_batch] = batch
            read, needed = read + padded[0].numel(), needed + int(batch.lengths.sum())
            steps += self._choose(plan.micro_batch, logits)
        started = tuple(row.id for row in plan.admit)
        return StepOutput(tuple(steps), started, len(rows), read, needed)

    def _start(
        self, rows: Sequence[Row], padded: _Padded, cache: Any, vocabulary: int
    ) -> _MicroBatch:
        if self._grammars is None:
            self._grammars = Grammars(self._tokenizer, vocabulary, self._ends)
        slots = np.arange(len(rows))
        batch = _MicroBatch(
            live={row.id: slot for slot, row in enumerate(rows)},
            sampler=Sampler(len(rows), vocabulary, self._device, self._ends, self._grammars),
            answers=Answers(len(rows), self._tokenizer, self._ends),
            lengths=np.array([len(row.prompt) for row in rows]),
            slots=slots,
            on_device=torch.from_numpy(slots).to(self._device),
            cache=cache,
            mask=padded.mask,
            positions=padded.positions[:, -1:],
            tokens=padded.tokens[:, -1],
        )
        for slot, row in enumerate(rows):
            limit = max(1, min(row.sampling.max_tokens, self._info.context - len(row.prompt)))
            batch.sampler.admit(slot, row, limit)
            batch.answers.admit(slot, row, limit)
        return batch

    def _decode(self, plan: StepPlan) -> StepOutput:
        batch = self._live[plan.micro_batch]
        batch.leave([batch.live[id] for id in plan.drop if id in batch.live])
        if not batch.live:
            self.forget(plan.micro_batch)
            return StepOutput()
        self._compact(batch)
        batch.mask = torch.nn.functional.pad(batch.mask, (0, 1), value=1)
        # A row that is over still steps: past the context there may be no embedding for it.
        batch.positions = (batch.positions + 1).clamp(max=self._info.context - 1)
        padded = _Padded(batch.tokens[:, None], batch.mask, batch.positions)
        logits, batch.cache = self._forward(*padded, batch.cache)
        batch.lengths += 1
        needed = len(batch.live)
        keys = int(batch.lengths[list(batch.live.values())].sum())
        steps = tuple(self._choose(plan.micro_batch, logits))
        return StepOutput(
            rows=steps,
            sampled=needed,
            tokens_read=len(batch.slots),
            tokens_needed=needed,
            keys_read=batch.mask.numel(),
            keys_needed=keys,
        )

    def _forward(
        self,
        tokens: torch.Tensor,
        mask: torch.Tensor,
        positions: torch.Tensor,
        cache: Any,
    ) -> tuple[torch.Tensor, Any]:
        """Logits of each row's next token, [B, V], and the cache."""
        out = self._model(
            input_ids=tokens,
            attention_mask=mask,
            position_ids=positions,
            past_key_values=cache,
            use_cache=True,
            **({"logits_to_keep": 1} if self._keeps else {}),
        )
        return out.logits[:, -1], out.past_key_values

    def _choose(self, number: int, logits: torch.Tensor) -> list[RowStep]:
        """Choose each row's token, and take leave of the rows that end with it."""
        batch = self._live[number]
        sampled = batch.sampler.choose(logits, batch.on_device, batch.slots)
        batch.tokens = sampled.tokens
        steps, over = batch.answers.collect(batch.on_device, sampled)
        batch.leave(over)
        if not batch.live:
            self.forget(number)
        return steps

    def _compact(self, batch: _MicroBatch) -> None:
        """Take the rows that are over out of the tensors, once they are enough."""
        if len(batch.slots) - len(batch.live) < DEAD_SHARE * len(batch.slots):
            return
        keep = np.flatnonzero(np.isin(batch.slots, list(batch.live.values())))
        index = torch.from_numpy(keep).to(self._device)
        batch.slots = batch.slots[keep]
        batch.on_device = batch.on_device[index]
        batch.tokens = batch.tokens[index]
        batch.mask = batch.mask[index]
        batch.positions = batch.positions[index]
        # Of all that a cache can do to its rows this is what every kind of layer can.
        batch.cache.reorder_cache(index)

    def _score(self, row: Row) -> tuple[tuple[float, ...], int, int]:
        """Log-likelihoods of a row's choices, each read after the whole prompt; then the tokens
        computed, and those that are not pads."""
        scores: list[float] = []
        read = needed = 0
        for choices in _portions(row):
            texts = [(*row.prompt, *choice[:-1]) for choice in choices]
            padded = _pad(texts, self._device)
            most = max(len(choice) for choice in choices)
            logits = self._model(
                input_ids=padded.tokens,
                attention_mask=padded.mask,
                position_ids=padded.positions.clamp(max=self._info.context - 1),
                use_cache=False,
                **({"logits_to_keep": most} if self._keeps else {}),
            ).logits
            for number, choice in enumerate(choices):
                (score,) = choice_scores(logits[number, -len(choice) :], choice_tree([choice]))
                scores.append(score)
            read += padded.tokens.numel()
            needed += sum(len(text) for text in texts)
        return tuple(scores), read, needed


def _pad(texts: Sequence[Sequence[int]], device: torch.device) -> _Padded:
    width = max(len(text) for text in texts)
    pads = [width - len(text) for text in texts]
    ids = [[PAD] * pad + list(text) for pad, text in zip(pads, texts, strict=True)]
    mask = torch.tensor([[0] * pad + [1] * (width - pad) for pad in pads], device=device)
    positions = (mask.cumsum(dim=-1) - 1).clamp(min=0)
    return _Padded(torch.tensor(ids, device=device), mask, positions)


def _portions(row: Row) -> Iterator[tuple[tuple[int, ...], ...]]:
    """A row's choices, as many at once as one forward may hold."""
    width = len(row.prompt) + max(len(choice) for choice in row.choices)
    count = max(1, SCORE_TOKENS // width)
    for first in range(0, len(row.choices), count):
        yield row.choices[first : first + count]


def end_tokens(model: Any, tokenizer: PreTrainedTokenizerBase) -> frozenset[int]:
    """All tokens that end an answer: the generation configuration has one, a list or none."""
    named = getattr(model.generation_config, "eos_token_id", None)
    several: Iterable[int | None] = named if isinstance(named, list) else [named]
    return frozenset(
        token for token in (*several, tokenizer.eos_token_id) if isinstance(token, int)
    )
