"""Jobs in turns: what is paused does not run, and a turn counts for the side that has it."""

from __future__ import annotations

import threading
import time

import pytest

from benchmarks.turns import Side, take_turns

TURN = 0.05  # seconds


class _Worker:
    """Goes through a door `steps` times; while it is paused the door is closed."""

    def __init__(self, steps: int, busy: set[str], name: str) -> None:
        self._steps, self._busy, self._name = steps, busy, name
        self._door = threading.Condition()
        self._open = False
        self.together: set[frozenset[str]] = set()

    def job(self) -> None:
        for _ in range(self._steps):
            with self._door:
                assert self._door.wait_for(lambda: self._open, 30)
                self.together.add(frozenset(self._busy))
            time.sleep(TURN / 10)  # the step's work: turns are of time, so it has to take some

    def pause(self) -> None:
        with self._door:
            self._open = False
            self._busy.discard(self._name)

    def resume(self) -> None:
        with self._door:
            self._open = True
            self._busy.add(self._name)
            self._door.notify_all()

    @property
    def side(self) -> Side:
        return Side(self.job, self.pause, self.resume)


def test_each_side_runs_alone_and_is_given_the_time_it_takes() -> None:
    busy: set[str] = set()
    short, long = _Worker(5, busy, "short"), _Worker(60, busy, "long")

    began = time.perf_counter()
    given = take_turns((short.side, long.side), TURN)
    took = time.perf_counter() - began

    assert short.together | long.together <= {frozenset({"short"}), frozenset({"long"})}
    assert 5 * TURN / 10 <= given[0] < given[1]
    assert 60 * TURN / 10 <= given[1] <= sum(given) <= took
    assert busy == {"short", "long"}  # both go on


def test_what_a_job_raises_is_raised_and_the_others_go_on_to_their_end() -> None:
    busy: set[str] = set()
    other = _Worker(40, busy, "other")

    def fail() -> None:
        raise RuntimeError("no more")

    ended = threading.Event()

    def job() -> None:
        other.job()
        ended.set()

    failing = Side(fail, lambda: None, lambda: None)
    with pytest.raises(RuntimeError, match="no more"):
        take_turns((Side(job, other.pause, other.resume), failing), TURN)

    assert ended.is_set()
