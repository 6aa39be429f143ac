"""What the run proved: the database beside what the clients were told. Changes nothing."""

from __future__ import annotations

import re
import statistics
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from rich.console import Console
from rich.table import Table

from penstock.errors import PromptError
from storage.database import Database
from storage.tables import SHARD_SIZE
from tests.chaos.clients import Book
from tests.chaos.faults import Faults, Kill
from tests.chaos.world import EXPRESS_ROWS, LEASE, ROWS
from tests.support.ledger import Ledger, check_consistent, check_finished, read_ledger
from workers.lanes import LaneSizes

#: Faults that end or fence what a worker runs.
ENDING = (
    "kill worker",
    "stall worker",
    "kill postgres",
    "postgres immediate",
    "exhaust connections",
)

RECOVERY = "kill to next result"
FEWEST_KILLS = 5  #: of which a median is judged
RESTART_LIMIT = 5.0  #: seconds from a kill to the next result, for a worker that comes back
TAKE_OVER_LIMIT = 10.0  #: on top of the lease, where another has to take over


@dataclass
class Verdict:
    """Figures for the table; `broken` says what must not be."""

    figures: dict[str, str] = field(default_factory=dict)
    broken: list[str] = field(default_factory=list)

    def must(self, what: str, count: int, most: int = 0) -> None:
        self.figures[what] = f"{count:,}" + (f" (at most {most:,})" if most else "")
        if count > most:
            self.broken.append(f"{what}: {count:,}")


def judge(
    database: Database, book: Book, faults: Faults, counts: Counter[str], logs: Iterable[str]
) -> Verdict:
    """After the storm, when everything has ended or the wait for it has."""
    verdict = Verdict()
    with database.begin() as conn:
        ledger = read_ledger(conn)
    jobs = book.jobs
    verdict.figures["jobs, prompts accepted"] = (
        f"{len(jobs):,}, {sum(len(job.prompts) for job in jobs.values()):,}"
    )
    verdict.figures["workers"] = "one of them logs to a full disk"
    verdict.figures["faults"] = ", ".join(f"{name} {n}" for name, n in sorted(counts.items()))
    wanted = {(job.id, n) for job in jobs.values() for n in range(len(job.prompts))}
    verdict.must("lost", len(wanted - ledger.results.keys()))
    known = {id for id, batch in ledger.batches.items() if batch.kind == "batch"}
    verdict.must("duplicated", len(known - jobs.keys()) + _changed(book))
    for check in (check_consistent, check_finished):
        try:
            check(ledger)
        except AssertionError as error:
            verdict.broken.append(
                f"{check.__name__}: {error or 'an open job, or one outcome too few'}"
            )
    _poison(verdict, book, {k: r.error_code for k, r in ledger.results.items()})
    _repeats(verdict, faults, sum(counts[name] for name in ENDING) + _crashes(book), ledger)
    refused = sum(len(re.findall(r"commit\.refused", log)) for log in logs)
    verdict.figures["stale writes refused"] = f"{refused:,}"
    for what, restarts, limit in (
        (f"{RECOVERY}, its slot restarts", True, RESTART_LIMIT),
        (f"{RECOVERY}, another takes over", False, LEASE + TAKE_OVER_LIMIT),
    ):
        _recovery(verdict, what, [k for k in faults.kills if k.restarts is restarts], limit, book)
    verdict.figures["slowest recoveries"] = _slowest(faults)
    if faults.busy:
        idle = 1 - statistics.fmean(faults.busy)
        verdict.figures["engine idle share, while it lived"] = f"{100 * idle:.0f} %"
    verdict.figures["answers"] = ", ".join(f"{k}: {n:,}" for k, n in sorted(book.answers.items()))
    verdict.must("wrong answers", len(book.wrong))
    verdict.broken += sorted(set(book.wrong))[:20]
    return verdict


def _repeats(verdict: Verdict, faults: Faults, ends: int, ledger: Ledger) -> None:
    """A row that ran when its worker ended is admitted once more; no other is."""
    sizes = LaneSizes(ROWS, EXPRESS_ROWS)
    in_flight = ROWS + EXPRESS_ROWS + sizes.admit_ahead + SHARD_SIZE
    repeats = sum(max(0, row.attempts - 1) for row in ledger.requests.values())
    verdict.must("repeats", repeats, most=max(1, ends) * in_flight)
    verdict.figures["repeats per end of a worker"] = f"{repeats / max(1, ends):.1f}"
    most = max((len(kill.rows) for kill in faults.kills), default=0)
    verdict.must("rows to repeat after one kill, the most", most, most=in_flight)


def _recovery(verdict: Verdict, what: str, kills: list[Kill], limit: float, book: Book) -> None:
    """Of the kills that hit running rows. A real model takes longer to load than the limit."""
    times = sorted(kill.moved_at - kill.at for kill in kills if kill.moved_at is not None)
    if not times:
        return
    median = statistics.median(times)
    worst = times[max(0, round(0.95 * len(times)) - 1)]
    verdict.figures[what] = (
        f"median {median:.1f} s (at most {limit:.0f}), 95 % {worst:.1f} s, of {len(times)} kills"
    )
    if book.echoes and len(times) >= FEWEST_KILLS and median > limit:
        verdict.broken.append(f"{what}: median {median:.1f} s")


def _slowest(faults: Faults) -> str:
    """Where to look in the list of faults."""
    took = [(k.moved_at - k.at, k) for k in faults.kills if k.moved_at is not None]
    took = sorted(took, key=lambda pair: pair[0], reverse=True)[:5]
    return ", ".join(f"{s:.1f} s of {k.worker} at {k.at - faults.began:.0f} s" for s, k in took)


def _changed(book: Book) -> int:
    return sum("changed after" in line or "given to two" in line for line in book.wrong)


def _crashes(book: Book) -> int:
    """Deaths that poison may cause: with others until it is suspected, then alone."""
    return sum(5 * len(job.poison) for job in book.jobs.values())


def _poison(verdict: Verdict, book: Book, codes: dict[tuple[str, int], str | None]) -> None:
    """Of the guilty ones that nobody cancelled and whose time did not run out."""
    found = {key for key, code in codes.items() if code == PromptError.POISON}
    guilty = {(job.id, position) for job in book.jobs.values() for position in job.poison}
    spared = (PromptError.CANCELLED, PromptError.EXPIRED)
    tried = {key for key in guilty if codes.get(key) not in spared}
    verdict.figures["poison found"] = f"{len(found & guilty)} of {len(tried)}"
    verdict.must("poison not found", len(tried - found))
    verdict.must("innocents condemned", len(found - guilty))


def show(verdict: Verdict, console: Console) -> None:
    """The table, and below it what must not be."""
    table = Table(title="chaos", show_header=False)
    for what, figure in verdict.figures.items():
        table.add_row(what, figure)
    console.print(table)
    for line in verdict.broken:
        console.print(f"BROKEN  {line}", markup=False)
