"""Log-likelihoods of labels from the logits along their tree. Knows no model."""

from __future__ import annotations

import torch

from models.choices import ChoiceTree


def choice_scores(logits_at_nodes: torch.Tensor, tree: ChoiceTree) -> tuple[float, ...]:
    """The natural log-likelihood of each choice. Logits [1 + nodes, V]: first those at the prompt's
    last token, then at each node of the tree. Raises FloatingPointError when one is not a number.
    """
    return as_scores(choice_sums(logits_at_nodes, tree))


def choice_sums(logits_at_nodes: torch.Tensor, tree: ChoiceTree) -> torch.Tensor:
    """The same [choices] as float64, unchecked, on the device, without waiting for it."""
    device = logits_at_nodes.device
    pairs = [pair for steps in tree.steps for pair in steps]
    nodes, tokens = torch.tensor(pairs).to(device, non_blocking=True).unbind(1)
    choices = torch.tensor([number for number, steps in enumerate(tree.steps) for _ in steps]).to(
        device, non_blocking=True
    )
    logits = logits_at_nodes.float()
    mass = logits.logsumexp(dim=-1).double()  # [1 + nodes]
    steps = logits[nodes + 1, tokens].double() - mass[nodes + 1]
    sums = torch.zeros(len(tree.steps), dtype=torch.float64, device=device)
    return sums.index_add_(0, choices, steps)


def as_scores(sums: torch.Tensor) -> tuple[float, ...]:
    """Raises FloatingPointError when one is not a number."""
    found: list[float] = sums.tolist()
    if any(score != score for score in found):
        raise FloatingPointError("the model's output is not a number")
    return tuple(found)
