"""McNemar's exact test: did two annotators of the same rows differ in accuracy by chance?

McNemar 1947, with the exact binomial distribution (two-sided). Knows counts only.
"""

from __future__ import annotations

import math


def exact_p(gained: int, lost: int) -> float:
    """The chance of a split at least as uneven, were a gain as likely as a loss. `gained`: rows
    that only the second annotator has right, `lost`: only the first. 1 where none differs."""
    discordant = gained + lost
    if discordant == 0:
        return 1.0
    # The terms by logarithms: 2**-n is nothing to a float from n = 1,075 on.
    smaller = min(gained, lost)
    tail = sum(math.exp(_log_share(discordant, k)) for k in range(smaller + 1))
    return min(1.0, 2 * tail)


def _log_share(n: int, k: int) -> float:
    ways = math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)
    return ways - n * math.log(2)
