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
from tests.chaos.faults import Faults
from tests.chaos.world import EXPRESS_ROWS, ROWS
from tests.support.ledger import check_consistent, check_finished, read_ledger
from workers.lanes import LaneSizes

#: Faults that end or fence what a worker runs.
ENDING = (
    "kill worker",
    "stall worker",
    "kill postgres",
    "postgres immediate",
    "exhaust connections",
)


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
    sizes = LaneSizes(ROWS, EXPRESS_ROWS)
    in_flight = ROWS + EXPRESS_ROWS + sizes.admit_ahead + SHARD_SIZE
    ends = sum(counts[name] for name in ENDING) + _crashes(book)
    repeats = sum(max(0, row.attempts - 1) for row in ledger.requests.values())
    verdict.must("repeats", repeats, most=max(1, ends) * in_flight)
    verdict.figures["repeats per end of a worker"] = f"{repeats / max(1, ends):.1f} of {in_flight}"
    refused = sum(len(re.findall(r"commit\.refused", log)) for log in logs)
    verdict.figures["stale writes refused"] = f"{refused:,}"
    times = [kill.moved_at - kill.at for kill in faults.kills if kill.moved_at is not None]
    if times:
        worst = sorted(times)[max(0, round(0.95 * len(times)) - 1)]
        verdict.figures["kill to next result"] = (
            f"median {statistics.median(times):.1f} s, 95 % {worst:.1f} s, of {len(times)} kills"
        )
    verdict.figures["answers"] = ", ".join(f"{k}: {n:,}" for k, n in sorted(book.answers.items()))
    verdict.must("wrong answers", len(book.wrong))
    verdict.broken += sorted(set(book.wrong))[:20]
    return verdict


def _changed(book: Book) -> int:
    return sum("changed after" in line or "given to two" in line for line in book.wrong)


def _crashes(book: Book) -> int:
    """Deaths that poison may cause: with others until it is suspected, then alone."""
    return sum(5 * len(job.poison) for job in book.jobs.values())


def _poison(verdict: Verdict, book: Book, codes: dict[tuple[str, int], str | None]) -> None:
    found = {key for key, code in codes.items() if code == PromptError.POISON}
    guilty = {(job.id, position) for job in book.jobs.values() for position in job.poison}
    verdict.figures["poison found"] = f"{len(found & guilty)} of {len(guilty)}"
    verdict.must("innocents condemned", len(found - guilty))
    ran = {key for key in guilty if codes.get(key, "lost") is None}
    verdict.must("poison with a result", len(ran))


def show(verdict: Verdict, console: Console) -> None:
    table = Table(title="chaos", show_header=False)
    for what, figure in verdict.figures.items():
        table.add_row(what, figure)
    console.print(table)
    for line in verdict.broken:
        console.print(f"BROKEN  {line}", markup=False)
