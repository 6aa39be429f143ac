"""A report in the terminal: the same figures as the page, without its pictures."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from penstock.annotation.report import words
from penstock.annotation.report.about import Rate, Report, speed
from penstock.annotation.report.cells import text
from penstock.annotation.report.fields import FieldFigures
from penstock.annotation.report.figures import DASH, duration, many, of, rate, share
from penstock.annotation.report.gather import Findings
from penstock.annotation.report.hardest import Example
from penstock.annotation.trust.calibration import Calibration

BAR = 24  # characters
BARS = 40  # of throughput
LEVELS = "▁▂▃▄▅▆▇█"
LABELS = 15
EXAMPLES = 5
CELL = 160  # characters of a cell
CONFUSED = 8  # labels that fit beside each other


def show(report: Report, console: Console) -> None:
    """Print it, part by part; parts without rows are left out."""
    console.print(Text(text(report.title, 200), style="bold"))
    for sentence in words.sentences(report):
        console.print(Text(sentence))
    for title, table in _tables(report):
        console.print()
        console.print(Text(title, style="bold"))
        console.print(table)


def _tables(report: Report) -> Iterator[tuple[str, Table]]:
    found = report.findings
    yield from _answers(found)
    yield from _against_gold(found)
    yield from _confidence(report)
    yield from _voters(found)
    mistaken, uncertain = found.mistaken.examples(), found.uncertain.examples()
    if mistaken:
        yield words.heading_of_mistakes(found), _examples(mistaken)
    if uncertain:
        yield words.heading_of_doubt(found), _examples(uncertain)
    if found.failed:
        reasons = found.reasons.top(LABELS)
        lines = [(reason, many(count)) for reason, count in reasons.counts]
        if reasons.others:
            lines.append(("(all others)", many(reasons.others)))
        yield "Failed rows", _table(("reason", "rows>"), lines)
    if report.receipt is not None:
        yield "What it cost", _table(("", ""), list(words.receipt_lines(report.receipt)))
    if report.rates:
        yield "Throughput over time", _throughput(report.rates)


def _answers(found: Findings) -> Iterator[tuple[str, Table]]:
    top = found.labels.top(LABELS)
    if top.total:
        most = max(1, top.counts[0][1])
        lines = [
            (name, many(count), of(count, found.done), "█" * round(BAR * count / most))
            for name, count in top.counts
        ]
        if top.others:
            lines.append(("(all others)", many(top.others), "", ""))
        yield "Class balance", _table(("label", "rows>", "share>", ""), lines)
    if found.fields and found.done:
        head = ("field", "filled>", "share>", "right on gold>", "values")
        yield "Fields", _table(head, [_field(each.figures(), found) for each in found.fields])


def _field(field: FieldFigures, found: Findings) -> tuple[str, ...]:
    if field.mean is not None:
        held = f"{field.low:.6g} to {field.high:.6g}, mean {field.mean:.4g}"
    else:
        counts = field.top.counts if field.top else ()
        held = "; ".join(f"{name} {of(count, field.filled)}" for name, count in counts)
    part = of(field.filled, found.done)
    return field.name, many(field.filled), part, words.bounded(field.right), held


def _against_gold(found: Findings) -> Iterator[tuple[str, Table]]:
    scores = found.gold.scores()
    if scores:
        yield (
            "Against gold",
            _table(
                ("label", "gold>", "answered>", "precision>", "recall>"),
                [
                    (
                        score.name,
                        many(score.gold),
                        many(score.answered),
                        words.bounded(score.precision),
                        words.bounded(score.recall),
                    )
                    for score in scores
                ],
            ),
        )
    confusion = found.gold.confusion()
    if confusion is not None and len(confusion.names) <= CONFUSED:
        names = [name or "(others)" for name in confusion.names]
        lines = [
            (shown, *map(many, confusion.row(name)))
            for shown, name in zip(names, confusion.names, strict=True)
        ]
        head = ("gold ↓ answer →", *(f"{text(name, 16)}>" for name in names))
        yield "Who is taken for whom", _table(head, lines)


def _confidence(report: Report) -> Iterator[tuple[str, Table]]:
    found = report.findings
    told = [voter.after for voter in report.calibrated if voter.after is not None]
    calibration = told[0] if told else found.certainty.calibration()
    if calibration is not None:
        yield "Does a probability mean what it says?", _reliability(calibration)
    review = found.certainty.review()
    if review:
        lines = [
            (
                share(line.share) if line.rows else "none",
                many(line.rows),
                words.probability(line.below) if line.rows else DASH,
                words.bounded(line.rest),
                words.bounded(line.whole),
            )
            for line in review
        ]
        head = ("look at>", "rows>", "below>", "right among the rest>", "all, with people>")
        yield "What looking at the least certain buys", _table(head, lines)


def _reliability(calibration: Calibration) -> Table:
    lines = [
        (
            f"{share(bin.low, 0)} to {share(bin.high, 0)}",
            many(bin.rows),
            share(bin.confidence),
            words.bounded(bin.interval),
        )
        for bin in calibration.bins
    ]
    return _table(("probability", "gold rows>", "says>", "right>"), lines)


def _voters(found: Findings) -> Iterator[tuple[str, Table]]:
    pairs = found.votes.pairs()
    if pairs:
        alpha = words.coefficient(found.votes.alpha())
        lines = [
            (
                f"{pair.one} and {pair.other}",
                many(pair.rows),
                words.bounded(pair.same),
                words.coefficient(pair.kappa),
            )
            for pair in pairs
        ]
        head = ("two voters", "rows>", "same answer>", "Cohen's kappa>")
        yield f"Voters: Krippendorff's alpha {alpha}", _table(head, lines)
    scores = found.votes.scores()
    if scores:
        judged = [
            (
                each.name,
                many(each.rows),
                words.bounded(each.accuracy),
                words.coefficient(each.kappa),
            )
            for each in scores
        ]
        head = ("voter", "gold rows>", "right>", "Cohen's kappa>")
        yield "Voters on gold rows", _table(head, judged)


def _examples(examples: Sequence[Example]) -> Table:
    lines = [
        (
            example.place,
            example.answer,
            example.gold,
            words.probability(example.probability),
            " · ".join(text(" ".join(cell.split()), CELL) for cell in example.cells.values()),
        )
        for example in examples[:EXAMPLES]
    ]
    return _table(("row", "answer", "gold", "probability>", "text"), lines)


def _throughput(rates: Sequence[Rate]) -> Table:
    """Bars of equal times, the highest for the fastest."""
    start, end = rates[0].start, rates[-1].end
    width = (end - start) / BARS
    speeds = [speed(rates, start + n * width, start + (n + 1) * width) for n in range(BARS)]
    top = max(speeds) or 1.0
    bars = "".join(LEVELS[round((len(LEVELS) - 1) * each / top)] for each in speeds)
    span = f"{duration(start)} to {duration(end)}, {rate(top)} rows/s at most"
    return _table(("", ""), [(bars, span)])


def _table(head: Sequence[str], lines: Sequence[Sequence[str]]) -> Table:
    """`>` after a name: to the right."""
    table = Table(box=None, pad_edge=False, show_header=any(head), header_style="dim")
    for name in head:
        right = name.endswith(">")
        table.add_column(name.rstrip(">"), justify="right" if right else "left", no_wrap=right)
    for line in lines:
        table.add_row(*(Text(cell) for cell in line))
    return table
