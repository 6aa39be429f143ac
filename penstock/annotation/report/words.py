"""What a report says in words and figures, the same on the page and in the terminal."""

from __future__ import annotations

from collections.abc import Iterator

from penstock.annotation.records import Interval, Kind, Receipt
from penstock.annotation.report.about import SCALING, Report
from penstock.annotation.report.figures import (
    DASH,
    between,
    decimal,
    duration,
    energy,
    many,
    of,
    plural,
    rate,
    share,
    size,
)
from penstock.annotation.report.gather import Findings

FEW = 30  # gold rows below which a share says little


def sentences(report: Report) -> Iterator[str]:
    """What to know first."""
    found = report.findings
    verb = {Kind.LABELS: "labeled", Kind.FIELDS: "filled in", Kind.TEXT: "answered"}
    what = f"{verb[found.layout.kind]}{_rest(found)}"
    yield f"{many(found.done)} of {plural(found.rows, 'row')} {what}."
    accuracy = found.gold.accuracy
    if accuracy is not None:
        yield (
            f"On {plural(found.gold.rows, 'gold row')}, {share(accuracy.middle)} are right "
            f"(95% interval {between(accuracy)}){_few(found.gold.rows)}."
        )
        if (kappa := found.gold.kappa()) is not None:
            yield f"Cohen's kappa against gold, beyond chance, is {coefficient(kappa)}."
    elif found.layout.gold is not None:
        yield f"The gold column {found.layout.gold} has no value in a row with an answer."
    yield from _calibration(report)
    if found.review:
        yield f"{plural(found.review, 'row')} ({of(found.review, found.rows)}) should be looked at."


def _rest(found: Findings) -> str:
    rest = []
    if found.failed:
        rest.append(f"{many(found.failed)} failed")
    if found.open:
        rest.append(f"{many(found.open)} are still to come")
    return f"; {', '.join(rest)}" if rest else ""


def _few(rows: int) -> str:
    return "; with so few, that says little" if rows < FEW else ""


def _calibration(report: Report) -> Iterator[str]:
    for voter in report.calibrated:
        if voter.before is None or voter.after is None:
            continue
        name = f" of {voter.voter}" if len(report.calibrated) > 1 else ""
        was = f", {voter.before.ece:.3f} before {voter.by}" if voter.by else ""
        how = "cross-validated on" if SCALING in voter.by else "on"
        note = f" {voter.note}" if voter.note else ""
        yield (
            f"The expected calibration error{name} is {voter.after.ece:.3f}{was} ({how} "
            f"{plural(voter.after.rows, 'gold row')}; chance alone makes {voter.after.noise:.3f})."
            f"{note}"
        )


def heading_of_doubt(found: Findings) -> str:
    """Over the rows that a person should see."""
    measured = found.certainty.rows or "agreement" in found.layout.roles
    return "Least certain" if measured else "For review"


def heading_of_mistakes(found: Findings) -> str:
    """Over the rows whose answer is not the gold one."""
    return "Not as gold, the surest first" if found.certainty.rows else "Not as gold"


def tiles(report: Report) -> Iterator[tuple[str, str, str]]:
    """The figures at the top: name, value, and what belongs to it."""
    found = report.findings
    yield "Rows", many(found.rows), f"{many(found.done)} done"
    accuracy = found.gold.accuracy
    if accuracy is not None:
        under = f"{between(accuracy)}, {many(found.gold.rows)} gold"
        yield "Right", share(accuracy.middle), under
    yield "For review", many(found.review), of(found.review, found.rows)
    yield "Failed", many(found.failed), of(found.failed, found.rows)
    if report.receipt is not None and report.receipt.seconds > 0:
        took = report.receipt
        yield "Took", duration(took.seconds), f"{rate(took.rows / took.seconds)} rows/s"


def receipt_lines(receipt: Receipt) -> Iterator[tuple[str, str]]:
    """Name and figure; what is not known is left out."""
    tokens = receipt.prompt_tokens + receipt.completion_tokens
    yield "Time", f"{duration(receipt.seconds)} for {plural(receipt.rows, 'row')}"
    if receipt.seconds > 0:
        yield "Rows per second", rate(receipt.rows / receipt.seconds)
        yield "Tokens per second", rate(tokens / receipt.seconds)
    yield "Tokens", f"{many(receipt.prompt_tokens)} in, {many(receipt.completion_tokens)} out"
    yield from _device_lines(receipt)
    if receipt.reused_rows:
        saved = f"{many(receipt.reused_tokens)} tokens" if receipt.reused_tokens else ""
        part = of(receipt.reused_rows, receipt.rows)
        told = ", ".join(text for text in (part, saved) if text)
        yield "Equal prompts, computed once", f"{plural(receipt.reused_rows, 'row')} ({told})"
    if receipt.prefix_tokens:
        yield "Read once as a shared beginning", f"{many(receipt.prefix_tokens)} tokens"


def _device_lines(receipt: Receipt) -> Iterator[tuple[str, str]]:
    rows = max(1, receipt.rows)
    if receipt.engine_seconds is not None:
        each = duration(receipt.engine_seconds / rows)
        yield "Engine at work", f"{duration(receipt.engine_seconds)}, {each} a row"
    if receipt.padded_share is not None:
        yield "Padding", f"{share(receipt.padded_share)} of what was computed"
    if receipt.peak_memory is not None:
        yield "Most memory", size(receipt.peak_memory)
    if receipt.energy is not None:
        yield "Energy", f"{energy(receipt.energy)}, {receipt.energy / rows:.3g} J a row"


def bounded(interval: Interval | None) -> str:
    """Share with its bounds, or a dash."""
    return DASH if interval is None else f"{share(interval.middle)} ({between(interval)})"


def coefficient(interval: Interval | None) -> str:
    """Value with its bounds, or a dash."""
    if interval is None:
        return DASH
    return f"{interval.middle:.2f} ({interval.low:.2f} to {interval.high:.2f})"


def probability(value: float | None) -> str:
    """Three digits; what is not quite 1 does not say so."""
    return ">0.999" if value is not None and 0.9995 <= value < 1 else decimal(value)
