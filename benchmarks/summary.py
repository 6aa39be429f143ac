"""Rates, ratios, and what must hold, from the runs of one program. Runs nothing, prints nothing."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from benchmarks.rounds import Results, Sample

TOKENS = ("mixed", "tail", "single")  #: cells whose rate is in tokens; of the others in rows
CACHED = ("vllm-64-cached",)
VLLM = ("vllm-32", "vllm-64", *CACHED)
#: Cells in which both of our runners do the same work.
BOTH = ("mixed", "shared", "tail", "single")


@dataclass(frozen=True, slots=True)
class Spread:
    """Of the rounds' rates, per second. `middle` is their median, or the rate of all rounds
    together where each ran other rows: the rows of the median alone would decide."""

    middle: float
    low: float
    high: float
    rounds: int
    rows: int  #: of a round


@dataclass(frozen=True, slots=True)
class Requirement:
    """A ratio, and where it has to be: at least, or at most. `measured` None: nothing to compare
    with, with the reason."""

    number: int
    what: str
    key: str
    measured: float | None
    least: float | None = None
    most: float | None = None

    @property
    def holds(self) -> bool | None:
        if self.measured is None:
            return None
        low = self.least is None or self.measured >= self.least
        return low and (self.most is None or self.measured <= self.most)


class Summary:
    """Answers questions about one program's runs."""

    def __init__(self, results: Results) -> None:
        self._samples = results.samples

    def places(self) -> list[tuple[str, str]]:
        """(model, dtype) in the order of their runs."""
        return list(dict.fromkeys((s.model, s.dtype) for s in self._samples))

    def contenders(self, place: tuple[str, str], cell: str) -> list[str]:
        return list(dict.fromkeys(s.contender for s in self._of(place, cell)))

    def cells(self, place: tuple[str, str]) -> list[str]:
        return list(dict.fromkeys(s.cell for s in self._of(place)))

    def rate(self, place: tuple[str, str], cell: str, contender: str) -> Spread | None:
        runs = [s for s in self._of(place, cell) if s.contender == contender]
        if not runs:
            return None
        rates = [_rate(s) for s in runs]
        middle = _rate(*runs) if self._in_parts(runs) else statistics.median(rates)
        return Spread(middle, min(rates), max(rates), len(rates), runs[0].answer.rows)

    def ratio(
        self, place: tuple[str, str], cell: str, ours: str, theirs: Sequence[str]
    ) -> float | None:
        """Ours over the best of some, in the rounds that both ran. The median of the quotients
        within rounds, for a machine that slows down in a round slows both; where theirs ran a part
        of the rows, another in each round, the quotient of the rates of all rounds together."""
        found = {name: self.rate(place, cell, name) for name in theirs}
        ran = {name: spread.middle for name, spread in found.items() if spread is not None}
        if not ran:
            return None
        over = self._by_round(place, cell, ours)
        under = self._by_round(place, cell, max(ran, key=ran.__getitem__))
        both = over.keys() & under.keys()
        if both and self._in_parts([*over.values(), *under.values()]):
            return _rate(*(over[n] for n in both)) / _rate(*(under[n] for n in both))
        return _median(_rate(over[number]) / _rate(under[number]) for number in both)

    def figure(self, place: tuple[str, str], cell: str, contender: str, name: str) -> float | None:
        """Median over the rounds of something that a contender says of a run."""
        runs = [s for s in self._of(place, cell) if s.contender == contender]
        return _median(s.answer.figures[name] for s in runs if name in s.answer.figures)

    def first_token(self, place: tuple[str, str], contender: str, chat: str = "") -> float | None:
        """Median seconds to the first token of a chat; `chat`: the number of one in each round."""
        return _median(
            seconds
            for s in self._of(place, "express")
            if s.contender == contender
            for name, seconds in s.answer.figures.items()
            if (name == f"ttft_{chat}" if chat else name.startswith("ttft_"))
        )

    def same_picks(self, place: tuple[str, str]) -> tuple[float, int] | None:
        """Share of prompts for which scoring picks the label that single forwards pick, and of how
        many."""
        runs = self._of(place, "labels")
        ours = {s.round: s.answer.picks for s in runs if s.contender == "packed-score"}
        theirs = [s for s in runs if s.contender == "per-label"]
        if 0 not in ours or not theirs:
            return None
        scored = ours[0]  # every round scores all prompts, from the first on
        pairs = [
            (pick, scored[(s.round * len(s.answer.picks) + n) % len(scored)])
            for s in theirs
            for n, pick in enumerate(s.answer.picks)
        ]
        return sum(a == b for a, b in pairs) / len(pairs), len(pairs)

    def growth(self, place: tuple[str, str]) -> dict[int, tuple[float, float | None]]:
        """Rows to milliseconds per row, and resident MB in the first round: in a later one the
        process has been through the largest."""
        found = {}
        for cell in self.cells(place):
            if cell.startswith("growth-"):
                spread = self.rate(place, cell, "packed")
                if spread is not None:
                    memory = self._of(place, cell)[0].answer.figures.get("rss_mb")
                    found[int(cell.removeprefix("growth-"))] = (1e3 / spread.middle, memory)
        return found

    def _in_parts(self, runs: Sequence[Sample]) -> bool:
        """Whether some of a cell's runs are of fewer rows than others had: other ones each."""
        place = (runs[0].model, runs[0].dtype)
        whole = max(s.answer.rows for s in self._of(place, runs[0].cell))
        return any(s.answer.rows < whole for s in runs)

    def _by_round(self, place: tuple[str, str], cell: str, contender: str) -> dict[int, Sample]:
        return {s.round: s for s in self._of(place, cell) if s.contender == contender}

    def _of(self, place: tuple[str, str], cell: str | None = None) -> list[Sample]:
        return [
            s
            for s in self._samples
            if (s.model, s.dtype) == place and (cell is None or s.cell == cell)
        ]


def _median(values: Iterable[float]) -> float | None:
    known = list(values)
    return statistics.median(known) if known else None


def quotient(over: float | None, under: float | None) -> float | None:
    return None if over is None or under is None or not under else over / under


def requirements(summary: Summary) -> list[Requirement]:
    """Everything that must hold, for each model and dtype that was run."""
    found = [need for place in summary.places() for need in _needs(summary, place)]
    return sorted(found, key=lambda need: need.number)


def _needs(summary: Summary, place: tuple[str, str]) -> Iterator[Requirement]:
    yield from _throughput(summary, place)
    yield from _labels(summary, place)
    yield from _growth(summary, place)
    yield from _express(summary, place)
    yield from _padding(summary, place)
    yield from _no_slower(summary, place)


def _throughput(summary: Summary, place: tuple[str, str]) -> Iterator[Requirement]:
    wide, key = place[1] == "float32", f"{place[0]}.{place[1]}"
    for number, what, cell, ours, theirs, least in (
        (1, "mixed: packed / naive", "mixed", "packed", ("naive",), 7.0 if wide else 9.0),
        (1, "mixed: packed / best vLLM", "mixed", "packed", VLLM, 1.1),
        (1, "mixed: plain torch / naive", "mixed", "torch", ("naive",), 4.5),
        (
            2,
            "shared: packed / best vLLM cached",
            "shared",
            "packed",
            CACHED,
            1.3 if wide else 1.1,
        ),
    ):
        name = f"{cell}.{ours}/{theirs[0].split('-')[0]}.{key}"
        yield Requirement(
            number, _of(what, place), name, summary.ratio(place, cell, ours, theirs), least
        )


def _labels(summary: Summary, place: tuple[str, str]) -> Iterator[Requirement]:
    key = f"{place[0]}.{place[1]}"
    score = "packed-score"
    for what, theirs, least in (
        ("labels: scoring / decoding under a mask", ("packed-mask",), 0.8),
        ("labels: scoring / one forward per label", ("per-label",), 20.0),
    ):
        measured = summary.ratio(place, "labels", score, theirs)
        name = f"labels.score/{theirs[0].removeprefix('packed-')}.{key}"
        yield Requirement(3, _of(what, place), name, measured, least)
    # Half precision may decide a tie otherwise, as it does from one batch size to another.
    least_same = 1.0 if place[1] == "float32" else None
    share, count = summary.same_picks(place) or (None, 0)
    what = f"labels: same label as single forwards, share of {count}"
    yield Requirement(3, _of(what, place), f"labels.same.{key}", share, least_same)


def _growth(summary: Summary, place: tuple[str, str]) -> Iterator[Requirement]:
    grown = summary.growth(place)
    key = f"{place[0]}.{place[1]}"
    if len(grown) > 1:
        most = max(grown)
        base = 256 if 256 in grown and most > 256 else min(grown)
        per_row = quotient(grown[most][0], grown[base][0])
        memory = quotient(grown[most][1], grown[base][1])
        what = f"growth: time per row, {most:,} / {base} rows"
        yield Requirement(4, _of(what, place), f"growth.time.{key}", per_row, most=1.1)
        what = f"growth: memory, {most:,} / {base} rows"
        yield Requirement(4, _of(what, place), f"growth.memory.{key}", memory, most=1.1)


def _express(summary: Summary, place: tuple[str, str]) -> Iterator[Requirement]:
    measured = quotient(
        summary.first_token(place, "packed-busy"), summary.first_token(place, "packed-idle")
    )
    key = f"express.busy/idle.{place[0]}.{place[1]}"
    yield Requirement(6, _of("express: first token, busy / idle", place), key, measured, most=2.0)


def _padding(summary: Summary, place: tuple[str, str]) -> Iterator[Requirement]:
    for name, most in (("packed", 1.15), ("torch", 1.5), ("padded", None)):
        linear = summary.figure(place, "mixed", name, "padded_share")
        keys = summary.figure(place, "mixed", name, "padded_share_keys")
        key = f"{name}.{place[0]}.{place[1]}"
        yield Requirement(
            7,
            _of(f"padding: {name}, share of the linear layers", place),
            f"padding.linear.{key}",
            linear,
            most=None if most is None else 0.0,
        )
        yield Requirement(
            7,
            _of(f"padding: {name}, attention reads / need", place),
            f"padding.reads.{key}",
            None if keys is None else 1 / (1 - keys),
            most=most,
        )


def _no_slower(summary: Summary, place: tuple[str, str]) -> Iterator[Requirement]:
    for cell in BOTH:
        for static in ("padded", "naive"):
            measured = summary.ratio(place, cell, "packed", (static,))
            what, key = f"{cell}: packed / {static}", f"{cell}.packed/{static}"
            yield Requirement(8, _of(what, place), f"{key}.{place[0]}.{place[1]}", measured, 0.95)


def _of(what: str, place: tuple[str, str]) -> str:
    return f"{what} ({place[0]}, {place[1]})"


def _rate(*runs: Sample) -> float:
    """Of some runs of one cell together."""
    counted = sum(s.answer.tokens if s.cell in TOKENS else s.answer.rows for s in runs)
    return counted / sum(s.answer.seconds for s in runs)


def ratios(needs: Iterable[Requirement]) -> dict[str, float | None]:
    return {need.key: None if need.measured is None else round(need.measured, 3) for need in needs}
