"""Tokens and predictions: what follows from the numbers."""

from __future__ import annotations

import math

import pytest

from penstock.annotation.lint.lengths import Lengths
from penstock.annotation.lint.lint import Findings
from penstock.annotation.lint.measure import Measured, predict
from penstock.annotation.lint.power import PowerMeter
from penstock.annotation.lint.survey import Survey
from penstock.annotation.lint.words import facts
from penstock.client import Answer
from penstock.schemas.health import CacheStats, ModelStats, Stats, WorkerStats


def counted(tokens: int, text: str | None = "", code: str | None = None) -> Answer:
    return Answer(0, text, code, "It is wrong.", tokens=(tokens, 0))


def test_rows_that_do_not_fit_or_may_be_cut_are_told_apart() -> None:
    lengths = Lengths(context=100, room=20)
    lengths.add("line 2", [counted(80)])
    lengths.add("line 3", [counted(30), counted(81)])
    lengths.add("line 4", [counted(100, None, "context_length_exceeded")])
    lengths.add("line 5", [Answer(0, None, "invalid_message", "Refused.")])

    assert (lengths.rows, lengths.too_long, lengths.cut) == (4, 1, 1)
    assert lengths.places == {"too_long": ["line 4 (100 tokens)"], "cut": ["line 3 (81 tokens)"]}
    assert lengths.failed == ["line 5: Refused."]
    assert lengths.mean == pytest.approx((80 + 111) / 4)


def test_quantiles_and_bars_follow_from_the_counts() -> None:
    lengths = Lengths()
    for tokens in range(1, 101):
        lengths.add("line", [counted(tokens)])

    assert [lengths.quantile(share) for share in (0.5, 0.95, 1.0)] == [50, 95, 100]
    bars = lengths.bars(most=12)
    assert bars[0] == (0, 10, 9)
    assert bars[-1] == (100, 110, 1)
    assert sum(count for _, _, count in bars) == lengths.prompts
    assert Lengths().bars() == []


def test_the_few_that_are_far_longer_share_the_last_bar() -> None:
    lengths = Lengths()
    for tokens in [10, 20, 30, 40] * 25 + [9_000]:
        lengths.add("line", [counted(tokens)])
    _, high, prompts = lengths.bars(most=6)[-1]
    assert (high < 200, prompts) == (True, 1)


@pytest.mark.parametrize(
    ("tokens", "least", "sentence"),
    [
        (40, 32, "about 40 tokens, read once for all rows"),
        (31, 32, "about 31 tokens, read for each row: it is shared from 32 tokens on"),
        (40, 0, "about 40 tokens, read for each row: this service shares none"),
        (40, None, "about 40 tokens, read once for all rows"),
    ],
)
def test_a_beginning_that_is_too_short_to_be_shared_is_not_promised(
    tokens: int, least: int | None, sentence: str
) -> None:
    found = Findings(Survey(rows=2), Lengths(), 1, (), tokens, None, least=least)

    assert dict(facts(found))["Shared beginning"] == sentence


def measured(*seconds: float, empty: float = 0.0, power: float | None = None) -> Measured:
    jobs = len(seconds)
    return Measured(32 * jobs, 3_000 * jobs, 200 * jobs, seconds, (3_200,) * jobs, empty, power)


def test_a_prediction_grows_with_the_table_and_has_bounds() -> None:
    told = predict([measured(1.0, 1.1, 0.9)], rows=32_000, mean=3_000 / 32, spread=0.01)

    assert told.seconds.middle == pytest.approx(1_000)
    assert told.seconds.low < 750 < 1_300 < told.seconds.high
    assert told.prompt_tokens == pytest.approx(3_000_000)
    assert told.completion_tokens == pytest.approx(200_000)
    assert (told.energy, told.measured) == (None, 96)


def test_jobs_that_differ_widen_the_bounds_and_one_alone_says_least() -> None:
    def width(*seconds: float) -> float:
        told = predict([measured(*seconds)], 3_200, 100.0, 0.0).seconds
        return math.log(told.high / told.low)

    assert width(1.0, 1.0, 1.0) < width(0.7, 1.0, 1.4)
    assert width(1.0, 1.0, 1.0) < width(1.0)


def test_what_an_empty_job_takes_is_partly_left_out_and_widens_the_bounds() -> None:
    told = predict([measured(1.0, 1.0, 1.0, empty=0.75)], 32_000, 100.0, 0.0).seconds
    plain = predict([measured(1.0, 1.0, 1.0)], 32_000, 100.0, 0.0).seconds

    assert told.middle == pytest.approx(plain.middle / 2)
    assert told.low < plain.middle / 4
    assert told.high > plain.middle


def test_voters_add_up_and_energy_is_told_only_where_all_tell() -> None:
    told = predict([measured(1.0, 1.0, power=20.0), measured(3.0, power=20.0)], 32, 100.0, 0.0)
    assert told.seconds.middle == pytest.approx(1.0 * 3_400 / 3_200 + 3.0, rel=0.01)
    assert told.energy is not None
    assert told.energy.middle == pytest.approx(told.seconds.middle * 20)
    assert predict([measured(1.0, power=1.0), measured(1.0)], 32, 100.0, 0.0).energy is None


class Devices:
    """Workers as the service tells of them: seconds since they did, and joules until then."""

    def __init__(self, *told: list[tuple[float, float]]) -> None:
        self._told = list(told)

    def stats(self) -> Stats:
        workers = [
            WorkerStats(
                slot=str(number),
                model="m",
                heartbeat_age=age,
                stats={"boot": f"b{number}", "energy": joules},
            )
            for number, (age, joules) in enumerate(self._told.pop(0))
        ]
        return Stats(
            model=ModelStats(name="m", loaded=True),
            workers=workers,
            queue=[],
            queue_depth=0,
            cache=CacheStats(size=0, hits=0, misses=0),
            conversations=0,
        )


def test_power_is_told_by_the_moments_at_which_workers_told_their_counters() -> None:
    meter = PowerMeter(Devices([(11.0, 500.0), (6.0, 0.0)], [(1.0, 1_500.0), (1.0, 250.0)]))
    assert meter.watts() == pytest.approx(100 + 50, rel=0.01)
    assert PowerMeter(Devices([])).watts() is None
