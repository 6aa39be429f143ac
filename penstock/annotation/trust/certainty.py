"""How sure a value is among the probabilities of all labels. Knows not where they come from.

Of several-of tasks each label is taken for itself, so that the probability of a set is a product.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

HALF = 0.5  # a label whose probability is that of its absence counts as there


class Certainty(NamedTuple):
    """Of one value. `entropy` in nats; `margin`: before the next best value."""

    probability: float
    entropy: float
    margin: float


def choose(probabilities: Mapping[str, float], several: bool) -> str | list[str]:
    """The likeliest label (the first of equal ones), or all that are likelier than not."""
    if several:
        return [label for label, share in probabilities.items() if share >= HALF]
    return max(probabilities, key=probabilities.__getitem__)


def certainty(value: object, probabilities: Mapping[str, float]) -> Certainty:
    """How sure `value` is; a negative margin says that another one is likelier."""
    if isinstance(value, list | tuple):
        return _of_set(frozenset(map(str, value)), probabilities)
    mine = probabilities.get(str(value), 0.0)
    others = [share for label, share in probabilities.items() if label != value]
    entropy = sum(map(_surprise, probabilities.values()))
    return Certainty(mine, entropy, mine - max(others, default=0.0))


def _of_set(labels: frozenset[str], probabilities: Mapping[str, float]) -> Certainty:
    shares = [share if label in labels else 1 - share for label, share in probabilities.items()]
    mine = math.prod(shares)
    # The next best set has one label the other way: the one that costs least.
    flips = [
        math.prod((*shares[:at], 1 - share, *shares[at + 1 :])) for at, share in enumerate(shares)
    ]
    entropy = sum(_surprise(share) + _surprise(1 - share) for share in shares)
    return Certainty(mine, entropy, mine - max(flips, default=0.0))


def _surprise(share: float) -> float:
    return -share * math.log(share) if share > 0 else 0.0
