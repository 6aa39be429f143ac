"""The look before a run as one self-contained page, in the report's style."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from penstock import __version__
from penstock.annotation.files import writing
from penstock.annotation.lint import words
from penstock.annotation.lint.lint import Findings
from penstock.annotation.lint.terminal import spelled
from penstock.annotation.report import plots
from penstock.annotation.report.figures import many
from penstock.annotation.report.html import PACKAGE as STYLED

PACKAGE = "penstock.annotation.lint"
BARS = 24


def write_page(found: Findings, title: str, path: Path) -> None:
    """Write the page. Raises InvalidRequest where it cannot be written."""
    with writing(path):
        path.write_text(page(found, title), encoding="utf-8")


def page(found: Findings, title: str) -> str:
    """The whole file. Whatever comes from data is escaped."""
    bars = found.lengths.bars(BARS)
    environment = Environment(
        loader=PackageLoader(PACKAGE, "page"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("lint.html").render(
        title=title,
        style=Markup(files(STYLED).joinpath("page/report.css").read_text("utf-8")),  # noqa: S704
        facts=list(words.facts(found)),
        warnings=list(words.warnings(found)),
        mistakes=list(words.mistakes(found)),
        picture=plots.histogram("tokens", bars, "Tokens of the prompts", _axis(found, bars), many)
        if len(bars) > 1
        else None,
        samples=[(row.place, spelled(row.prompts[0])) for row in found.samples],
        version=__version__,
    )


def _axis(found: Findings, bars: list[tuple[int, int, int]]) -> str:
    longest = max(found.lengths.tokens)
    return "tokens" if longest < bars[-1][1] else f"tokens; the last bar up to {many(longest)}"
