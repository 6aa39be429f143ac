"""What the scale run reports, on figures made up; what it measures, on this process."""

from __future__ import annotations

import os

from benchmarks.outages import Outages
from benchmarks.scale import PROCESSES, Scale, document
from benchmarks.timed_job import Reading, TimedJob
from benchmarks.usage import cpu_s, pss_mb, watching


def job(rows: int, ended: float, processor: float, memory: float = 50.0) -> TimedJob:
    return TimedJob(
        id="batch",
        rows=rows,
        accepted=1.0,
        ended=ended,
        memory=dict.fromkeys(PROCESSES, memory),
        processor=dict.fromkeys(PROCESSES, processor / len(PROCESSES)),
    )


def scale() -> Scale:
    """A row costs 1 ms in small jobs by the median, and 1.1 ms in the large one; less processor."""
    small = [job(100, ended, 0.05) for ended in (0.1, 0.1, 0.9)]
    return Scale(small, job(1_000, 1.1, 0.4, 80), small, [Reading("in pages", 2.0, 5_000_000, 61)])


def test_a_row_of_the_large_job_is_compared_with_the_median_of_the_small_ones() -> None:
    assert round(scale().growth("wall_us"), 6) == 0.1
    assert round(scale().growth("processor_us"), 6) == -0.2


def test_the_document_holds_what_was_measured() -> None:
    written = document(scale(), Outages(500, (100.0, 110.0), (84.0, 105.0), 0.5, 0))

    assert "| **1,000 rows** | 1,000 | 909 | 1,100 | 400 |" in written
    assert "costs +10% time and -20% processor time" in written
    assert "| worker | 50 | 80 | 83 | 67 |" in written
    assert "| in pages | 2.0 | 5 | 61 |" in written
    assert "84, 105 against 100, 110 rows/s, 90% of the normal rate" in written
    assert "ended after 0.5 s (grace period 20 s); 0 prompts ran twice" in written


def test_memory_and_processor_time_of_a_process_are_read() -> None:
    with watching(lambda: {"this": os.getpid()}) as peaks:
        held = bytearray(os.urandom(1 << 20)) * 64

    assert peaks["this"] > 1
    assert pss_mb(os.getpid()) > len(held) / 1e6
    assert cpu_s(os.getpid()) > 0
    assert (pss_mb(2**22 + 1), cpu_s(2**22 + 1)) == (0, 0), "nobody has this id"
