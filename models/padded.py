"""Left-padded micro-batches on transformers' own cache: for every causal LM, and the reference
that a faster runner is compared with. Decides nothing: it runs the plans it is given."""

from __future__ import annotations

import inspect
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from models.codec import TokenizerCodec
from models.detokenize import Detokenizer
from models.runner import FinishReason, ModelInfo, Row, RowStep, StepOutput, StepPlan
from models.sampling import Sampler
from penstock.errors import OutOfMemory

#: Finished rows stay in the tensors until they are this share of them: leaving costs a copy.
DEAD_SHARE = 0.25
PAD = 0  #: any token will do: the mask hides it
OUT_OF_MEMORY = ("not enough memory", "can't allocate memory", "CUBLAS_STATUS_ALLOC_FAILED")


@dataclass(slots=True)
class _Live:
    """One row. `left` are the tokens it may still have."""

    id: str
    detokenizer: Detokenizer
    left: int
    over: bool = False


@dataclass(slots=True)
class _MicroBatch:
    """Rows and their tensors, all in the same order."""

    rows: list[_Live]
    sampler: Sampler
    cache: Any  # transformers' own
    mask: torch.Tensor  # [B, T]: which columns of the cache are not pads
    positions: torch.Tensor  # [B, 1]: of the last token read
    tokens: list[int] = field(default_factory=list)  # the last of each row, not read yet


class PaddedRunner:
    """Prefills a micro-batch left-padded, then decodes it a token a step. Calls of one thread."""

    def __init__(
        self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, info: ModelInfo
    ) -> None:
        self._model: Any = model
        self._tokenizer: Any = tokenizer
        self._info = info
        self._codec = TokenizerCodec(tokenizer)
        self._device = torch.device(model.device)
        self._ends = _end_tokens(model, tokenizer)
        self._live: dict[int, _MicroBatch] = {}
        keeps = "logits_to_keep" in inspect.signature(model.forward).parameters
        self._last_only: dict[str, int] = {"logits_to_keep": 1} if keeps else {}

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
            if not _is_out_of_memory(error):
                raise
        # Out here the failed step's tensors are no longer held by the error's traceback.
        self.forget(plan.micro_batch)
        if self._device.type == "cuda":
            torch.cuda.empty_cache()
        raise OutOfMemory

    def forget(self, micro_batch: int) -> None:
        self._live.pop(micro_batch, None)

    def _prefill(self, plan: StepPlan) -> StepOutput:
        lengths = [len(row.prompt) for row in plan.admit]
        width = max(lengths)
        pads = [width - length for length in lengths]
        ids = [[PAD] * pad + list(row.prompt) for pad, row in zip(pads, plan.admit, strict=True)]
        mask = torch.tensor([[0] * pad + [1] * (width - pad) for pad in pads], device=self._device)
        positions = (mask.cumsum(dim=-1) - 1).clamp(min=0)  # [B, T]
        tokens = torch.tensor(ids, device=self._device)  # [B, T]
        logits, cache = self._forward(tokens, mask, positions, None)
        self._live[plan.micro_batch] = _MicroBatch(
            rows=[self._row(row) for row in plan.admit],
            sampler=Sampler(plan.admit, logits.shape[-1], self._device),
            cache=cache,
            mask=mask,
            positions=positions[:, -1:],
        )
        return self._collect(plan.micro_batch, logits, mask.numel(), sum(lengths))

    def _decode(self, plan: StepPlan) -> StepOutput:
        batch = self._live[plan.micro_batch]
        for row in batch.rows:
            row.over = row.over or row.id in plan.drop
        self._compact(batch)
        tokens = torch.tensor(batch.tokens, device=self._device)[:, None]  # [B, 1]
        batch.mask = torch.nn.functional.pad(batch.mask, (0, 1), value=1)
        # A row that is over still steps: past the context there may be no embedding for it.
        batch.positions = (batch.positions + 1).clamp(max=self._info.context - 1)
        logits, batch.cache = self._forward(tokens, batch.mask, batch.positions, batch.cache)
        needed = sum(not row.over for row in batch.rows)
        return self._collect(plan.micro_batch, logits, len(batch.rows), needed)

    def _forward(
        self, tokens: torch.Tensor, mask: torch.Tensor, positions: torch.Tensor, cache: Any
    ) -> tuple[torch.Tensor, Any]:
        """Logits of each row's next token, [B, V], and the cache."""
        out = self._model(
            input_ids=tokens,
            attention_mask=mask,
            position_ids=positions,
            past_key_values=cache,
            use_cache=True,
            **self._last_only,
        )
        return out.logits[:, -1], out.past_key_values

    def _collect(self, number: int, logits: torch.Tensor, read: int, needed: int) -> StepOutput:
        """Choose each row's token, and take leave of the rows that end with it."""
        batch = self._live[number]
        batch.tokens = batch.sampler.choose(logits)
        steps = tuple(
            self._advance(row, token)
            for row, token in zip(batch.rows, batch.tokens, strict=True)
            if not row.over
        )
        if all(row.over for row in batch.rows):
            self.forget(number)
        return StepOutput(steps, read, needed)

    def _advance(self, row: _Live, token: int) -> RowStep:
        row.left -= 1
        if token in self._ends:
            text, finish = row.detokenizer.finish(), FinishReason.STOP
        else:
            text, finish = row.detokenizer.push(token), FinishReason.LENGTH
            if row.left == 0 and not row.detokenizer.stopped:
                text += row.detokenizer.finish()
            if row.detokenizer.stopped:
                finish = FinishReason.STOP
        row.over = finish is FinishReason.STOP or row.left == 0
        return RowStep(row.id, text, finish if row.over else None)

    def _compact(self, batch: _MicroBatch) -> None:
        """Take the rows that are over out of the tensors, once they are enough."""
        keep = [index for index, row in enumerate(batch.rows) if not row.over]
        if len(batch.rows) - len(keep) < DEAD_SHARE * len(batch.rows):
            return
        index = torch.tensor(keep, device=self._device)
        batch.rows = [batch.rows[i] for i in keep]
        batch.tokens = [batch.tokens[i] for i in keep]
        batch.mask = batch.mask[index]
        batch.positions = batch.positions[index]
        batch.sampler.keep(keep)
        # Of all that a cache can do to its rows this is what every kind of layer can.
        batch.cache.reorder_cache(index)

    def _row(self, row: Row) -> _Live:
        left = max(1, min(row.sampling.max_tokens, self._info.context - len(row.prompt)))
        return _Live(row.id, Detokenizer(self._text, row.sampling.stop), left)

    def _text(self, ids: list[int]) -> str:
        text: str = self._tokenizer.decode(
            ids, skip_special_tokens=True, clean_up_tokenization_spaces=False
        )
        return text


def _end_tokens(model: Any, tokenizer: PreTrainedTokenizerBase) -> frozenset[int]:
    """All tokens that end an answer: the generation configuration has one, a list or none."""
    named = getattr(model.generation_config, "eos_token_id", None)
    several: Iterable[int | None] = named if isinstance(named, list) else [named]
    return frozenset(
        token for token in (*several, tokenizer.eos_token_id) if isinstance(token, int)
    )


def _is_out_of_memory(error: BaseException) -> bool:
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return any(sign in str(error) for sign in OUT_OF_MEMORY)
