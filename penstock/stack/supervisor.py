"""Keeps the children of a stack alive: starts in order, restarts what dies, stops in order.

Knows specs and signals; nothing of what a child does. All of it runs on the main thread.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from subprocess import SubprocessError
from types import FrameType

from penstock.errors import StackError
from penstock.stack import leftovers
from penstock.stack.child import Child, ChildSpec, describe_exit
from penstock.stack.directory import os_errors_as_sentences

FIRST_DELAY = 0.5  # seconds before the first restart, doubled with each further one
STEADY = 10.0  # seconds of life after which an earlier death is forgiven
_TICK = 0.1
_LOG_CHECK = 10.0


class Stopped(Exception):
    """Raised in a wait when the user asked to stop."""


class _Kept:
    """A child and the memory of its deaths."""

    def __init__(self, child: Child) -> None:
        self.child = child
        self.started = 0.0
        self.deaths = 0
        self.restart_at: float | None = None

    def start(self) -> None:
        self.child.spawn()
        self.started = time.monotonic()
        self.restart_at = None

    def plan_restart(self) -> float:
        """Note a death; returns the seconds until it is started again."""
        now = time.monotonic()
        if now - self.started >= STEADY:
            self.deaths = 0
        delay = min(self.child.spec.longest_pause, FIRST_DELAY * 2.0**self.deaths)
        self.deaths = min(self.deaths + 1, 16)
        self.restart_at = now + delay
        return delay


class Supervisor:
    """One process tree. `say` gets a line for whatever a user should see."""

    def __init__(
        self,
        specs: Sequence[ChildSpec],
        *,
        stop_order: Sequence[str],
        logs: Path,
        pids: Path,
        say: Callable[[str], None],
        on_change: Callable[[], None] = lambda: None,
    ) -> None:
        self._kept = {spec.name: _Kept(Child(spec, logs)) for spec in specs}
        self._stop_order = stop_order
        self._pids = pids
        self._say = say
        self._on_change = on_change
        self._asked = 0
        self._logs_checked = time.monotonic()

    def pids(self) -> dict[str, int]:
        """Process ids of the children that run."""
        pairs = ((name, kept.child.pid) for name, kept in self._kept.items())
        return {name: pid for name, pid in pairs if pid is not None}

    @contextmanager
    def signals(self) -> Iterator[None]:
        """Within: SIGINT, SIGTERM and SIGHUP ask to stop; a second one stops without patience."""
        with _on_stop_signals(self._ask):
            yield

    def start(self) -> None:
        """Start all, each when those before it are ready. Raises StackError, or Stopped."""
        for name in leftovers.end(self._pids):
            self._say(f"{name} of an earlier run was still ending; waited for it")
        pending: list[_Kept] = []
        for kept in self._kept.values():
            self._start(kept)
            if kept.child.spec.barrier:
                self._await_ready(kept)
            else:
                pending.append(kept)
        for kept in pending:
            self._await_ready(kept)

    def watch(self) -> None:
        """Restart what dies, until somebody asks to stop."""
        while not self._asked:
            self._tend()
            time.sleep(_TICK)

    def stop(self) -> None:
        """Stop all in order, each within its limits. Nothing runs afterwards."""
        for name in self._stop_order:
            self._kept[name].child.ask_to_stop(hurry=lambda: self._asked > 1)
        self._pids.unlink(missing_ok=True)

    def _ask(self, number: int, frame: FrameType | None) -> None:
        self._asked += 1

    def _start(self, kept: _Kept) -> None:
        if self._asked:
            raise Stopped
        with os_errors_as_sentences(kept.child.log_file):
            kept.start()
        self._changed()

    def _changed(self) -> None:
        try:
            leftovers.remember(self._pids, [kept.child for kept in self._kept.values()])
            self._on_change()
        except OSError as error:
            self._say(f"cannot note which processes run: {error}")

    def _await_ready(self, kept: _Kept) -> None:
        spec = kept.child.spec
        deadline = time.monotonic() + spec.start_limit
        while not self._is_ready(kept):
            if self._asked:
                raise Stopped
            if time.monotonic() > deadline:
                raise StackError(
                    f"{spec.name} was not ready within {spec.start_limit:.0f} seconds"
                    f"{_quote(kept.child)} (log: {kept.child.log_file})"
                )
            self._tend(starting=kept)
            time.sleep(_TICK)
        self._say(f"{spec.name} {'done' if spec.once else 'ready'}")

    def _is_ready(self, kept: _Kept) -> bool:
        child = kept.child
        if child.pid is not None:
            return not child.spec.once and child.spec.ready()
        if child.spec.once and child.exit_status == 0:
            return True
        if not child.spec.retry_start:
            raise StackError(
                f"{child.spec.name} ended while it started "
                f"({describe_exit(child.exit_status)}){_quote(child)} (log: {child.log_file})"
            )
        return False

    def _tend(self, starting: _Kept | None = None) -> None:
        now = time.monotonic()
        for kept in self._kept.values():
            child = kept.child
            if child.spec.once or not kept.started or child.pid is not None:
                continue
            if kept.restart_at is None:
                delay = kept.plan_restart()
                how = describe_exit(child.exit_status)
                if kept is not starting:
                    self._say(f"{child.spec.name} ended ({how}); starting again in {delay:g} s")
            elif now >= kept.restart_at:
                self._restart(kept)
        if now - self._logs_checked >= _LOG_CHECK:
            self._logs_checked = now
            with suppress(OSError):  # a full disk: there is a next time
                for kept in self._kept.values():
                    kept.child.rotate_log()

    def _restart(self, kept: _Kept) -> None:
        try:
            kept.start()
        except (OSError, SubprocessError) as error:
            delay = kept.plan_restart()
            self._say(f"{kept.child.spec.name} cannot start ({error}); again in {delay:g} s")
        else:
            self._changed()


@contextmanager
def interruptible() -> Iterator[None]:
    """Within, before there is a supervisor: the same signals raise Stopped at once."""

    def leave(number: int, frame: FrameType | None) -> None:
        raise Stopped

    with _on_stop_signals(leave):
        yield


@contextmanager
def _on_stop_signals(handler: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.signal(number, handler) for number in numbers}
    try:
        yield
    finally:
        for number, earlier in before.items():
            signal.signal(number, earlier)


def _quote(child: Child) -> str:
    words = child.last_words().removeprefix("penstock: ")
    return f": {words}" if words else ""
