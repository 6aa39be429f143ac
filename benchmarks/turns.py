"""Jobs side by side, in turns of a few seconds: each computes while the others are paused, so that
a machine that is slow for a minute is slow for all of them."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Side:
    """`job` blocks until it is done. Between `pause` and `resume` nothing of it computes; it begins
    paused or idle."""

    job: Callable[[], object]
    pause: Callable[[], object]
    resume: Callable[[], object]


def take_turns(sides: Sequence[Side], turn: float) -> list[float]:
    """Run all jobs once, in turns of `turn` seconds. Returns the seconds that each was given. All
    are resumed at the end. Raises what a job raises."""
    given = [0.0] * len(sides)
    running: dict[int, Future[object]] = {}
    line = deque(range(len(sides)))
    with ThreadPoolExecutor(len(sides)) as threads:
        try:
            while line:
                n = line.popleft()
                began = time.perf_counter()
                sides[n].resume()
                if n not in running:
                    running[n] = threads.submit(sides[n].job)
                wait([running[n]], turn)
                given[n] += time.perf_counter() - began
                sides[n].pause()
                if running[n].done():
                    running[n].result()
                else:
                    line.append(n)
        finally:
            for side in sides:
                side.resume()
    return given
