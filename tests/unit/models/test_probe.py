"""The probe finds every way of attending that is not the model's own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from models.packed.model import Unpackable
from models.packed.probe import Probe
from models.packed.torch_attention import attend
from tests.unit.models.families import model
from tests.unit.models.tiny import CONTEXT

Change = Callable[[dict[str, Any]], object]


def wrong(change: Change) -> Any:
    """Attention that has some of its arguments changed."""

    def changed(*tensors: Any, **asked: Any) -> torch.Tensor:
        change(asked)
        return attend(*tensors, **asked)

    return changed


def one_more(asked: dict[str, Any]) -> None:
    if asked["window"] is not None:
        asked["window"] += 1


@pytest.mark.parametrize(
    ("family", "config", "change"),
    [
        ("mistral", {}, lambda asked: asked.update(window=None)),
        ("mistral", {}, one_more),
        ("mistral", {"sliding_window": 4096}, one_more),
        ("gemma3", {"sliding_window": 4096}, lambda asked: asked.update(window=None)),
        ("gemma2", {"attn_logit_softcapping": 5.0}, lambda asked: asked.update(softcap=None)),
    ],
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_an_argument_that_is_ignored_shows(
    family: str, config: dict[str, Any], change: Change, dtype: torch.dtype
) -> None:
    probe = Probe(model(family, **config).to(dtype), CONTEXT)
    with pytest.raises(Unpackable, match="not its own with"):
        probe.check(wrong(change))
    probe.check(attend)


def test_two_percent_of_another_scale_show() -> None:
    with pytest.raises(Unpackable, match="not its own with"):
        Probe(model("llama"), CONTEXT).check(
            wrong(lambda asked: asked.update(scaling=asked["scaling"] * 1.02))
        )


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("family", ["llama", "mistral", "gemma2", "mixtral", "gpt2"])
def test_the_noise_of_rougher_types_is_allowed(family: str, dtype: torch.dtype) -> None:
    Probe(model(family).to(dtype), CONTEXT).check(attend)


@pytest.mark.parametrize("window", [8, 4096])
def test_windows_are_as_they_were_afterwards(window: int) -> None:
    made = model("gemma3", sliding_window=window)
    Probe(made, CONTEXT).check(attend)
    layers = [layer.self_attn.sliding_window for layer in made.model.layers]
    assert (made.config.sliding_window, layers) == (window, [window, None])


def test_keys_of_other_rows_show() -> None:
    def confused(query: Any, keys: Any, values: Any, layout: Any, **asked: Any) -> torch.Tensor:
        layout.own_start[:] = layout.own_start[0]
        layout.notes.clear()
        return attend(query, keys, values, layout, **asked)

    with pytest.raises(Unpackable, match="not its own with"):
        Probe(model("llama"), CONTEXT).check(confused)


def test_an_output_that_is_no_number_and_an_attention_that_fails_are_refused() -> None:
    made = model("llama")
    probe = Probe(made, CONTEXT)
    with pytest.raises(Unpackable, match="nan"):
        probe.check(lambda *tensors, **asked: attend(*tensors, **asked) * torch.nan)

    def fails(*tensors: Any, **asked: Any) -> torch.Tensor:
        raise RuntimeError("no such kernel\nsecond line")

    with pytest.raises(Unpackable, match=r"a packed step fails: no such kernel$"):
        probe.check(fails)
    assert made.config._attn_implementation == "sdpa"


def test_a_longer_context_than_the_rotary_embedding_was_made_for_is_refused_only_when_used() -> (
    None
):
    made = model("phi3-longrope")
    with pytest.raises(Unpackable, match="far on in its context"):
        Probe(made, CONTEXT).check(attend)
    Probe(made, CONTEXT // 2).check(attend)
