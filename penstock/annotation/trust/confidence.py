"""From what a voter's scores say to probabilities that hold: contextual calibration by content-free
prompts, temperature by gold rows. Knows readings, no file and no service.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from penstock.annotation.records import Reading
from penstock.annotation.trust.calibration import TINY, Calibration, Pair, calibration
from penstock.annotation.trust.certainty import certainty, choose
from penstock.annotation.trust.right import labels_of
from penstock.annotation.trust.temperature import Case, best_temperature, loss
from penstock.errors import InvalidRequest

Gold = tuple[Reading, str]

FEWEST = 30  # gold rows from which a temperature is fitted
FOLDS = 5
MOST_ROWS, MOST_LOGITS = 20_000, 200_000  # of gold that the search looks at: about two seconds


@dataclass(frozen=True, slots=True)
class Confidence:
    """How a voter's probabilities are made. Those of a label are divided by its `prior` first.

    `before`: of the scores as they are; `after`: of what is written, each gold row with the
    temperature of the other folds. `note`: why it is not what was asked for, where so. `gold`:
    rows that could be compared; the calibrations say how many of them were.
    """

    temperature: float = 1.0
    prior: Mapping[str, float] | None = None
    before: Calibration | None = None
    after: Calibration | None = None
    gold: int = 0
    note: str | None = None

    def probabilities(self, reading: Reading) -> Mapping[str, float] | None:
        """Of all labels; None where nothing was scored."""
        logits = _logits(reading, self.prior)
        if logits is None:
            return None
        if _several(reading):
            return {label: _sigmoid(logit / self.temperature) for label, logit in logits.items()}
        return softmax(logits, self.temperature)


def softmax(
    scores: Mapping[str, float],
    temperature: float = 1.0,
    prior: Mapping[str, float] | None = None,
) -> dict[str, float]:
    """Log-likelihoods as probabilities that sum to 1."""
    logits = _corrected(scores, prior)
    top = max(logits.values())
    weights = {label: math.exp((logit - top) / temperature) for label, logit in logits.items()}
    total = math.fsum(weights.values())
    return {label: weight / total for label, weight in weights.items()}


def prior_of(readings: Sequence[Reading]) -> Mapping[str, float]:
    """What the labels get where a prompt has no content, as a mean (Zhao et al. 2021)."""
    plain = Confidence()
    found = [shares for each in readings if (shares := plain.probabilities(each)) is not None]
    if not found:
        raise InvalidRequest(
            "No content-free prompt was scored; contextual calibration needs labels by scoring.",
            param="content_free",
        )
    return {
        label: math.fsum(shares.get(label, 0.0) for shares in found) / len(found)
        for label in found[0]
    }


def fit(gold: Iterable[Gold], prior: Mapping[str, float] | None = None) -> Confidence:
    """The temperature that fits the gold rows, measured by cross-validation.

    Scaling that does not make gold answers likelier on rows it was not fitted on is left out, and
    the note says so. Of very many gold rows a random sample is looked at.
    """
    rows, count = _drawn(gold)
    if not rows:
        return Confidence(prior=prior)
    before = calibration(_pair(row, Confidence()) for row in rows)
    plain = Confidence(prior=prior)
    unscaled = before if prior is None else calibration(_pair(row, plain) for row in rows)
    if len(rows) < FEWEST:
        note = f"{len(rows)} gold rows are too few to fit a temperature; it takes {FEWEST}."
        return Confidence(1.0, prior, before, unscaled, count, note)
    cases = [_cases(row, prior) for row in rows]
    temperatures = [best_temperature(_flat(cases, fold)) for fold in range(FOLDS)]
    turns = [temperatures[number % FOLDS] for number in range(len(rows))]
    scaled = calibration(
        _pair(row, Confidence(turn, prior)) for row, turn in zip(rows, turns, strict=True)
    )
    held_out = sum(loss(case, turn) for case, turn in zip(cases, turns, strict=True))
    if held_out >= loss(_flat(cases), 1.0):
        note = (
            "Temperature scaling is left out: on gold rows it was not fitted on, it makes the "
            f"answers no likelier (calibration error {unscaled.ece:.3f}, scaled {scaled.ece:.3f})."
        )
        return Confidence(1.0, prior, before, unscaled, count, note)
    temperature = best_temperature(_flat(cases))
    return Confidence(temperature, prior, before, scaled, count, _grown(before, scaled))


def _grown(before: Calibration, after: Calibration) -> str | None:
    """What to say where the calibration error grew, though the gold answers got likelier."""
    if after.ece <= before.ece:
        return None
    return (
        f"The calibration error grew from {before.ece:.3f} to {after.ece:.3f} on "
        f"{before.rows:,} gold rows, though their answers got likelier."
    )


def _drawn(gold: Iterable[Gold]) -> tuple[list[Gold], int]:
    """The rows that can be compared, or an even sample of them (a reservoir), and their number."""
    kept: list[Gold] = []
    count, most = 0, MOST_ROWS
    chance = random.Random(0)  # noqa: S311 - the same rows give the same temperature
    for reading, answer in gold:
        row = (reading, answer.strip())
        logits = _logits(reading, None)
        if logits is None or (not _several(reading) and row[1] not in logits):
            continue
        count += 1
        most = min(most, max(FEWEST, MOST_LOGITS // len(logits)))
        if len(kept) < most:
            kept.append(row)
        elif (place := chance.randrange(count)) < most:
            kept[place] = row
    return kept, count


def _pair(row: Gold, confidence: Confidence) -> Pair:
    """How sure the answer to a gold row is, and whether it is right."""
    reading, gold = row
    shares = confidence.probabilities(reading) or {}
    value = choose(shares, _several(reading))
    right = frozenset(value) == labels_of(gold) if isinstance(value, list) else value == gold
    return certainty(value, shares).probability, right


def _cases(row: Gold, prior: Mapping[str, float] | None) -> list[Case]:
    """One-of: a case; several-of: one for each label, whether it applies."""
    reading, gold = row
    logits = _logits(reading, prior) or {}
    if not _several(reading):
        return [(tuple(logits.values()), list(logits).index(gold))]
    wanted = labels_of(gold)
    return [((0.0, logit), int(label in wanted)) for label, logit in logits.items()]


def _flat(cases: Sequence[list[Case]], but: int | None = None) -> list[Case]:
    """Of all rows, or of all but one fold."""
    return [case for number, row in enumerate(cases) if number % FOLDS != but for case in row]


def _several(reading: Reading) -> bool:
    return isinstance(reading.value, list | tuple)


def _logits(reading: Reading, prior: Mapping[str, float] | None) -> dict[str, float] | None:
    """What softmax (one-of) or the logistic function (several-of) makes probabilities of."""
    if reading.value is None:
        return None
    if _several(reading):
        odds = {label: _logit(share) for label, share in (prior or {}).items()}
        return {
            label: _logit(share) - odds.get(label, 0.0)
            for label, share in (reading.probabilities or {}).items()
        } or None
    if reading.scores:
        return _corrected(reading.scores, prior)
    if not reading.probabilities:
        return None
    scores = {label: math.log(max(p, TINY)) for label, p in reading.probabilities.items()}
    return _corrected(scores, prior)


def _corrected(scores: Mapping[str, float], prior: Mapping[str, float] | None) -> dict[str, float]:
    if prior is None:
        return dict(scores)
    return {label: z - math.log(max(prior.get(label, 1.0), TINY)) for label, z in scores.items()}


def _logit(share: float) -> float:
    bounded = min(max(share, TINY), 1 - TINY)
    return math.log(bounded / (1 - bounded))


def _sigmoid(logit: float) -> float:
    return 1 / (1 + math.exp(-logit)) if logit >= 0 else math.exp(logit) / (1 + math.exp(logit))
