"""Makes a model's layers faster on the CPU, in place. Each swap is compared with the original on
random numbers first. What remains cannot be trained, saved or moved."""

from __future__ import annotations

from torch import nn

from models.native import feed_forward, layer, norm, rotary
from models.native.library import library
from models.native.linear import TorchLinear, prepack
from models.native.panels import PanelLinear


def apply(model: nn.Module) -> list[str]:
    """Returns what was done, in words; nothing for a model on another device."""
    if any(parameter.device.type != "cpu" for parameter in model.parameters()):
        return []
    loaded = library()
    done = feed_forward.swap(model, loaded) + norm.swap(model, loaded)
    if loaded is not None:
        done += rotary.swap(model, loaded)
    done += layer.swap(model, loaded)
    return [*done, *prepack(model), *_chosen(model)]


def _chosen(model: nn.Module) -> list[str]:
    """Which products were chosen, where those are not oneDNN's in the weights' type."""
    ours = sum(isinstance(one, PanelLinear) for one in model.modules())
    wide = sum(isinstance(one, TorchLinear) and one.is_wide for one in model.modules())
    told = []
    if ours:
        told.append(f"{ours} of their products are faster here in panels of ours")
    if wide:
        told.append(f"{wide} of their products are faster here in float32")
    return told
