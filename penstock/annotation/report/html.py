"""A report as one self-contained HTML file. Knows what a report is, not how it was gathered."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from importlib.resources import files
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from penstock import __version__
from penstock.annotation.files import writing
from penstock.annotation.report import figures, plots, words
from penstock.annotation.report.about import Calibrated, Report
from penstock.annotation.report.gather import LENGTHS
from penstock.annotation.trust.calibration import Calibration

PACKAGE = "penstock.annotation.report"
LABELS = 30  # in the class balance
REASONS = 15  # of failed rows
VOTERS = 4  # with reliability diagrams


def write_page(report: Report, path: Path) -> None:
    """Write the page. Raises InvalidRequest where it cannot be written."""
    with writing(path):
        path.write_text(page(report), encoding="utf-8")


def page(report: Report) -> str:
    """The whole file. Whatever comes from data is escaped."""
    found = report.findings
    return (
        _environment()
        .get_template("report.html")
        .render(
            report=report,
            found=found,
            layout=found.layout,
            style=Markup(files(PACKAGE).joinpath("page/report.css").read_text("utf-8")),  # noqa: S704
            labels=found.labels.top(LABELS),
            reasons=found.reasons.top(REASONS),
            figures=figures,
            words=words,
            plots=plots,
            lengths=LENGTHS,
            panels=list(_panels(report)),
            version=__version__,
        )
    )


def _panels(report: Report) -> Iterator[tuple[str, Markup]]:
    """The reliability diagrams with their captions."""
    drawn = [each for voter in report.calibrated[:VOTERS] for each in _of_voter(voter)]
    if not drawn and (calibration := report.findings.certainty.calibration()) is not None:
        drawn.append(("", "As written in the table", calibration))
    several = len(report.calibrated) > 1
    for place, (voter, when, calibration) in enumerate(drawn):
        whose = f"{voter}: " if several else ""
        caption = f"{whose}{when} · ECE {calibration.ece:.3f}"
        title = f"Reliability. {whose}{when}"
        yield caption, plots.reliability(f"reliability-{place}", title, calibration)


def _of_voter(voter: Calibrated) -> Iterator[tuple[str, str, Calibration]]:
    scaled = f"After (temperature {voter.temperature:.2f})"
    drawn = [("Before", voter.before), (scaled, voter.after)] if voter.by else []
    for when, calibration in drawn or [("As scored", voter.after or voter.before)]:
        if calibration is not None and calibration.bins:
            yield voter.voter, when, calibration


@cache
def _environment() -> Environment:
    return Environment(
        loader=PackageLoader(PACKAGE, "page"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
