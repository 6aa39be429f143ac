"""Whether a model can be run packed: its logits must equal its own, on packed steps of every kind.

Tokens are too weak a test: a path that ignores a window or a cap often finds the same ones. Knows
no sampling and no text.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from statistics import median
from typing import Any

import torch

from models.packed.attention import Attend
from models.packed.model import PackedModel, Unpackable
from models.packed.trial import FAR, LONG, SCORED, Tokens, Trial

#: The model's own definition. Its other implementations ignore some of what it asks for.
REFERENCE = "eager"
#: Each longer window is made this short meanwhile, so that short prompts reach beyond it.
WINDOW = 7
WINDOWS = ("sliding_window", "sliding_window_size", "attention_chunk_size")
#: Error allowed, relative to the spread of the logits: of fp32; of rougher types as many times the
#: model's own noise, and at least as many roundings (which add up like random steps, by layers).
EXACT, NOISE, ROUNDINGS = 1e-3, 4.0, 3.0


class Probe:
    """The model's own logits, taken before anything of ours touches it."""

    def __init__(self, model: Any, context: int) -> None:
        """`context`: the most tokens of a row. Raises Unpackable for a model that cannot be asked
        for its logits one prompt at a time."""
        self._model = model
        self._context = context
        self._implementation = model.config._attn_implementation
        self._trial = Trial(model.config.get_text_config().vocab_size)
        self._own: dict[Tokens, torch.Tensor] = {}
        try:
            model.set_attn_implementation(REFERENCE)
            with torch.inference_mode(), _narrow(model):
                self._ask()
                self._allowed = self._tolerance()
        except Exception as error:  # whatever a model that we know nothing about raises
            raise Unpackable(f"it does not run plainly: {first_line(error)}") from error
        finally:
            model.set_attn_implementation(self._implementation)

    @property
    def vocabulary(self) -> int:
        """Size of the logits."""
        return len(next(iter(self._own.values())))

    def check(self, attend: Attend) -> PackedModel:
        """The model, ready for packed steps. Raises Unpackable with the reason when it must not be
        run so; its attention is its own again then."""
        try:
            with torch.inference_mode():
                packed = PackedModel(self._model, attend)
                with _narrow(self._model):
                    self._compare(packed)
            return packed
        except Exception as error:
            self._model.set_attn_implementation(self._implementation)
            if isinstance(error, Unpackable):
                raise
            raise Unpackable(f"a packed step fails: {first_line(error)}") from error

    def _ask(self) -> None:
        trial = self._trial
        scored = trial.prompt(SCORED)
        for text in (*trial.texts.values(), *(scored + label[:-1] for label in trial.labels)):
            for at, logits in enumerate(self._logits(text)):
                self._own.setdefault(text[: at + 1], logits)

    def _logits(self, text: Tokens, copies: int = 1) -> torch.Tensor:
        """The model's own logits [T, V] of one prompt, run alone or beside copies of itself."""
        tokens = torch.tensor([text] * copies, device=self._model.device)
        logits: torch.Tensor = self._model(input_ids=tokens, use_cache=False).logits[0]
        return logits.float()

    def _tolerance(self) -> float:
        dtype, config = self._model.dtype, self._model.config.get_text_config()
        quantized = getattr(self._model, "is_quantized", False)
        if dtype == torch.float32 and not quantized:
            return EXACT
        rounding = 2 * torch.finfo(torch.bfloat16).eps if quantized else torch.finfo(dtype).eps
        least: float = rounding * ROUNDINGS * (2 + config.num_hidden_layers) ** 0.5
        text = self._trial.prompt(LONG)
        crowd = self._logits(text, copies=4)
        noise = [_distance(self._own[text[: at + 1]], logits) for at, logits in enumerate(crowd)]
        return max(least, NOISE * median(noise))

    def _compare(self, packed: PackedModel) -> None:
        errors: dict[str, list[float]] = {}
        for sample in self._trial.run(packed, self._context):
            if sample.case != FAR:
                distance = _distance(self._own[sample.tokens], sample.logits.float())
                errors.setdefault(sample.case, []).append(distance)
        for case, found in errors.items():
            # Single tokens of a rough type may be off, where experts are chosen by a hair.
            error = max(found) if self._allowed == EXACT else median(found)
            if not error <= self._allowed:  # nor is a NaN
                raise Unpackable(
                    f"its logits are not its own with {case}:"
                    f" off by {error:.2%}, allowed are {self._allowed:.2%}"
                )


def _distance(own: torch.Tensor, ours: torch.Tensor) -> float:
    """Relative to the spread of the model's own logits [V]."""
    norm = torch.linalg.vector_norm
    return float((norm(ours - own) / norm(own - own.mean())).item())


@contextmanager
def _narrow(model: Any) -> Iterator[None]:
    """Make windows short, in the configuration and wherever layers hold a copy. Where one is missed
    the two sides differ, and the model is not packed."""
    changed: list[tuple[Any, str, int]] = []
    try:
        for holder in (model.config.get_text_config(), *model.modules()):
            for name in WINDOWS:
                value = getattr(holder, name, None)
                if isinstance(value, int) and value > WINDOW:
                    changed.append((holder, name, value))
                    setattr(holder, name, WINDOW)
        yield
    finally:
        for holder, name, value in changed:
            setattr(holder, name, value)


def first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:300]
