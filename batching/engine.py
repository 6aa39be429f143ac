"""The engine's loop: schedule, run, deliver. One thread touches the scheduler and the runner; all
others send it commands. Knows no queue, no database and no tensor."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable
from typing import TypeVar

from batching.deadlines import Deadlines
from batching.gate import Gate, OnAdmit, admit_all
from batching.meter import Meter
from batching.packed import PackedScheduler
from batching.padded import PaddedScheduler
from batching.refusal import blame, refusal
from batching.requests import (
    EngineConfig,
    EngineLane,
    EngineOutcome,
    EngineRequest,
    EngineStats,
)
from batching.scheduler import Scheduler
from batching.sequence import Sequence
from batching.stats import engine_stats
from batching.ticket import OnDone, OnToken, Ticket
from models.runner import FinishReason, Purpose, RowStep, Runner, StepPlan
from penstock.errors import InvalidRequest, OutOfMemory, PenstockError, PromptError
from penstock.telemetry import get_logger

log = get_logger(__name__)

T = TypeVar("T")

LONGEST_WAIT = 1.0  #: of an idle loop, in seconds
COMMANDS_AT_ONCE = 1_000  #: read between two steps
JOIN_TIMEOUT = 30.0
#: Requests that failed by themselves, one after the other. A device in a broken state fails all it
#: is given, and faster than anybody could look: better to end, and leave the rest in the queue.
MAX_FAILURES_IN_A_ROW = 16


class Engine:
    """Runs requests on a runner. Every submitted request ends in exactly one `on_done`; when the
    loop dies, or gives up a runner that fails at everything, that is as cancelled.

    Callbacks run on the engine's thread and must be quick; what they raise is logged. `on_admit` is
    called before the first step of requests with the ids that were not admitted yet: it makes the
    admission durable and returns those that may run, the others end as cancelled. When it raises
    Unavailable they wait and are tried again, and live rows go on.
    """

    def __init__(
        self,
        runner: Runner,
        config: EngineConfig,
        *,
        on_admit: OnAdmit = admit_all,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._runner = runner
        self._info = info = runner.info
        padded = info.runner == "padded"
        self._scheduler: Scheduler = (
            PaddedScheduler(config) if padded else PackedScheduler(config, info)
        )
        self._gate = Gate(on_admit)
        self._clock = clock
        self._meter = Meter(clock())
        self._inbox: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._open: dict[str, Ticket] = {}
        self._deadlines = Deadlines()
        self._pending = False  #: the runner has more to tell, with or without a step to run
        self._draining = False
        self._stopping = False
        self._closed = False
        self._close_lock = threading.Lock()
        self._busy_since: float | None = None
        self._failures_in_a_row = 0
        self._thread = threading.Thread(target=self._loop, name="engine", daemon=True)

    # ---- called from any thread -----------------------------------------------------------

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """End everything as cancelled, after the present step. Waits for the thread, at most
        half a minute."""
        self._stopping = True
        self._inbox.put(_nothing)
        if self._thread.ident is None:
            self._close()
        elif self._thread is not threading.current_thread():
            self._thread.join(JOIN_TIMEOUT)

    def submit(
        self, request: EngineRequest, on_done: OnDone, on_token: OnToken | None = None
    ) -> None:
        """Never blocks. `on_token` gets the text of the first answer as it comes. Raises
        InvalidRequest for a lane that does not exist, or no answers to give."""
        if request.lane not in list(EngineLane):
            raise InvalidRequest(f"There is no lane {request.lane!r}.", param="lane")
        if request.n < 1:
            raise InvalidRequest("At least one answer has to be asked for.", param="n")
        ticket, now = Ticket(request, on_done, on_token), self._clock()
        with self._close_lock:
            if not self._closed:
                self._inbox.put(lambda: self._take(ticket, now))
                return
        _call(on_done, ticket.failure(None, "The engine has stopped."))

    def cancel(self, id: str) -> None:
        """Takes effect between two steps. Of an unknown id: nothing."""
        self._inbox.put(lambda: self._cancel(id))

    def drain(self) -> None:
        """Admit nothing more: what waits ends as cancelled now, what runs finishes."""
        self._inbox.put(self._drain)

    def alive(self) -> bool:
        """Does the loop run? False before `start`, after `stop`, and when it died."""
        return self._thread.is_alive()

    def stats(self) -> EngineStats:
        now, busy_since = self._clock(), self._busy_since
        return engine_stats(
            self._info.runner,
            self._scheduler,
            self._meter,
            now,
            last_step_age=0.0 if busy_since is None else max(0.0, now - busy_since),
            failures_in_a_row=self._failures_in_a_row,
            draining=self._draining,
        )

    # ---- the loop -------------------------------------------------------------------------

    def _loop(self) -> None:
        try:
            while not self._stopping:
                self._turn()
            self._busy_since = None
        except Exception:
            # The age of the last step grows from here on: the watchdog's sign.
            self._busy_since = self._clock()
            log.exception("engine.died")
        finally:
            self._close()

    def _turn(self) -> None:
        now = self._clock()
        for ticket in self._deadlines.pop(now):
            self._cancel(ticket.request.id, "The deadline has passed.")
        plan = self._scheduler.schedule(now) or (StepPlan() if self._pending else None)
        if plan is None:
            self._busy_since = None
            self._await_command()
            return
        self._busy_since = now
        left = self._admit(plan) if plan.admit else plan
        if left is not None:
            self._step(left)
        self._read_inbox()

    def _step(self, plan: StepPlan) -> None:
        began, rows = self._clock(), self._scheduler.rows_in(plan)
        try:
            output = self._runner.step(plan)
            started = [self._scheduler.find(id) for id in output.started]
            results = self._scheduler.update(plan, output)
        except Exception as error:
            self._failed(plan, error)
            return
        now = self._clock()
        self._pending = output.pending
        self._meter.record(began, now, rows, output)
        for sequence in started:
            if sequence is not None and sequence.started is None:
                sequence.started = now
                self._meter.began(now, sequence.lane, now - sequence.arrived)
        for sequence, step in results:
            self._deliver(sequence, step, now)

    def _deliver(self, sequence: Sequence, step: RowStep, now: float) -> None:
        ticket = self._open.get(sequence.request.id)
        if ticket is None:
            return  # another of its answers failed in the same step
        if step.finish in (FinishReason.ERROR, FinishReason.CANCELLED):
            message = step.text or "The model cannot serve this prompt."
            self._end(ticket, PromptError.INVALID_REQUEST, message)
            return
        fresh = sequence.append(step)
        if fresh and ticket.on_token is not None and sequence.stream:
            _call(ticket.on_token, fresh)
        if step.finish is None:
            return
        self._failures_in_a_row = 0
        if sequence.started is not None and step.tokens > 1:
            self._meter.ended(now, now - sequence.started, step.tokens - 1)
        if ticket.is_answered:
            self._close_ticket(ticket, ticket.result())

    def _admit(self, plan: StepPlan) -> StepPlan | None:
        """Make the admission durable. None: nothing is left to run now."""
        entering = self._scheduler.entering(plan)
        refused = self._gate.refused(list(dict.fromkeys(row.request.id for row in entering)))
        if refused is None:
            self._scheduler.hold(self._clock() + self._gate.backoff)
            return self._scheduler.take_back(plan)
        for sequence in entering:
            for answer in self._open[sequence.request.id].sequences:
                answer.admitted = True
        left: StepPlan | None = plan
        if refused:
            tickets = [self._open[id] for id in refused]
            rows = {answer.id for ticket in tickets for answer in ticket.sequences}
            left = self._scheduler.refuse(plan, rows)
            for ticket in tickets:
                self._end(ticket, None, "Not admitted.")
        for row in left.admit if left is not None else ():
            if row.purpose is not Purpose.PREFIX:
                found = self._scheduler.find(row.id)
                self._meter.admitted(len(row.prompt), found.cached if found else 0)
        return left

    def _failed(self, plan: StepPlan, error: Exception) -> None:
        """The rows of a failed step run again in smaller company; one that failed by itself ends.
        The others never notice."""
        out_of_memory = isinstance(error, OutOfMemory)
        log.warning(
            "step.failed",
            micro_batch=plan.micro_batch,
            rows=self._scheduler.rows_in(plan),
            out_of_memory=out_of_memory,
            exc_info=not out_of_memory,
        )
        self._pending = False
        self._forget(plan.micro_batch)
        for sequence in self._scheduler.fail(plan, out_of_memory=out_of_memory):
            # What the prompt itself is to blame for says nothing of the device.
            self._failures_in_a_row += not isinstance(error, PenstockError)
            self._end(self._open[sequence.request.id], *blame(error))
        if self._failures_in_a_row >= MAX_FAILURES_IN_A_ROW:
            raise RuntimeError("the runner fails at whatever it is given")

    def _forget(self, micro_batch: int) -> None:
        try:
            self._runner.forget(micro_batch)
        except Exception:
            log.exception("micro_batch.not_forgotten", micro_batch=micro_batch)

    # ---- commands -------------------------------------------------------------------------

    def _await_command(self) -> None:
        """Sleep until a command comes, or something is due."""
        dues = (self._scheduler.next_due(), self._deadlines.next)
        due = min((due for due in dues if due is not None), default=None)
        wait = LONGEST_WAIT if due is None else min(LONGEST_WAIT, due - self._clock())
        try:
            command = self._inbox.get(timeout=max(0.0, wait))
        except queue.Empty:
            return
        command()
        self._read_inbox()

    def _read_inbox(self) -> None:
        for _ in range(COMMANDS_AT_ONCE):
            try:
                command = self._inbox.get_nowait()
            except queue.Empty:
                break
            command()
        for micro_batch in self._scheduler.take_emptied():
            self._forget(micro_batch)

    def _take(self, ticket: Ticket, now: float) -> None:
        request = ticket.request
        refused = self._refusal(request)
        if refused is not None:
            _call(ticket.on_done, ticket.failure(*refused))
            return
        self._open[request.id] = ticket
        self._deadlines.add(ticket)
        for branch in range(1 if request.choices else request.n):
            stream = ticket.on_token is not None and branch == 0
            row = self._scheduler.add(request, now, branch=branch, stream=stream)
            ticket.sequences.append(row)

    def _refusal(self, request: EngineRequest) -> tuple[PromptError | None, str] | None:
        """Why a request cannot even wait."""
        if self._draining or self._closed:
            return None, "The engine is stopping."
        if request.id in self._open:
            log.warning("request.repeated", id=request.id)
            return None, "A request with this id is in the engine."
        return refusal(request, self._info.context, self._scheduler)

    def _cancel(self, id: str, message: str | None = None) -> None:
        ticket = self._open.get(id)
        if ticket is not None:
            self._end(ticket, None, message)

    def _drain(self) -> None:
        self._draining = True
        for sequence in self._scheduler.clear_waiting():
            self._cancel(sequence.request.id, "The engine is stopping.")

    def _close(self) -> None:
        with self._close_lock:
            self._closed = True
        while not self._inbox.empty():
            self._read_inbox()
        for id in list(self._open):
            self._cancel(id)
        self._read_inbox()
        self._forget(0)  # what was cancelled just now has not been dropped by a step

    # ---- answers --------------------------------------------------------------------------

    def _end(self, ticket: Ticket, error: PromptError | None, message: str | None) -> None:
        """A request ends without a result: none of its rows runs on."""
        for sequence in ticket.sequences:
            self._scheduler.cancel(sequence.id)
        self._close_ticket(ticket, ticket.failure(error, message))

    def _close_ticket(self, ticket: Ticket, outcome: EngineOutcome) -> None:
        ticket.over = True
        self._deadlines.ended(ticket)
        del self._open[ticket.request.id]
        _call(ticket.on_done, outcome)


def _call(callback: Callable[[T], None], argument: T) -> None:
    try:
        callback(argument)
    except Exception:
        log.exception("callback.failed")


def _nothing() -> None:
    """Wakes the loop."""
