"""What a look before the run found, in sentences: the same in the terminal and on the page."""

from __future__ import annotations

from collections.abc import Iterator

from penstock.annotation.lint.lint import Findings
from penstock.annotation.records import Interval
from penstock.annotation.report.figures import energy, many, of, plural
from penstock.annotation.run.wording import around
from penstock.annotation.trust.confidence import FEWEST


def mistakes(found: Findings) -> Iterator[str]:
    """What the run would be refused for."""
    survey = found.survey
    yield from survey.mistakes
    if survey.wrong > len(survey.mistakes):
        yield f"And {plural(survey.wrong - len(survey.mistakes), 'row')} more."


def warnings(found: Findings) -> Iterator[str]:
    """What the run would not be refused for, but is seldom meant."""
    survey, lengths = found.survey, found.lengths
    if lengths.too_long:
        yield (
            f"{plural(lengths.too_long, 'row')} will fail, longer than the model's context of "
            f"{many(lengths.context or 0)} tokens: {'; '.join(lengths.places['too_long'])}."
        )
    if lengths.cut:
        yield (
            f"{plural(lengths.cut, 'row')} may be cut: the prompt and an answer of "
            f"{many(lengths.room)} tokens do not fit into the context of "
            f"{many(lengths.context or 0)}: {'; '.join(lengths.places['cut'])}."
        )
    for reason in lengths.failed:
        yield f"A prompt cannot be asked: {reason}"
    if survey.repeated:
        about = "" if survey.distinct.exact else "about "
        shown = "; ".join(f"{place} is {first}" for place, first in survey.duplicates)
        yield (
            f"{about.capitalize()}{plural(survey.repeated, 'row')} "
            f"({of(survey.repeated, survey.sound)}) ask what another one asks"
            f"{': ' + shown if shown else ''}."
        )
    for column, count in survey.empty.items():
        if count:
            part = f"{plural(count, 'row')} ({of(count, survey.sound)})"
            yield f"The column {column!r} is empty in {part}."
    if 0 < survey.gold < FEWEST:
        yield (
            f"{plural(survey.gold, 'row')} with a gold answer are too few to calibrate by; it "
            f"takes {FEWEST}."
        )
    yield from found.notes


def facts(found: Findings) -> Iterator[tuple[str, str]]:
    """Names and figures."""
    survey, lengths = found.survey, found.lengths
    yield "Rows", many(survey.rows) + (f", {many(survey.gold)} with gold" if survey.gold else "")
    if lengths.tokens:
        sampled = "" if lengths.rows >= survey.sound else f" (of {plural(lengths.rows, 'row')})"
        yield (
            f"Tokens of a prompt{sampled}",
            f"{many(lengths.quantile(0.5))} in the middle, {many(lengths.quantile(0.95))} at most "
            f"in 95%, {many(max(lengths.tokens))} in the longest",
        )
    if found.prefix is not None:
        yield "Shared beginning", _shared(found.prefix, found.least)
    if found.voters > 1:
        yield "Voters asked", many(found.voters)
    yield from _cost(found)


def _shared(tokens: int, least: int | None) -> str:
    about = f"about {plural(tokens, 'token')}"
    if least == 0:
        return f"{about}, read for each row: this service shares none"
    if least is not None and tokens < least:
        return f"{about}, read for each row: it is shared from {plural(least, 'token')} on"
    return f"{about}, read once for all rows"


def _cost(found: Findings) -> Iterator[tuple[str, str]]:
    told = found.prediction
    if told is None:
        return
    yield (
        "Time",
        f"{around(told.seconds)}, 80% interval, measured on {plural(told.measured, 'row')}",
    )
    yield "Tokens", f"{many(told.prompt_tokens)} in, {many(told.completion_tokens)} out"
    if told.energy is not None:
        yield "Energy", _bounded(told.energy)


def _bounded(joules: Interval) -> str:
    return f"{energy(joules.middle)} ({energy(joules.low)} to {energy(joules.high)})"
