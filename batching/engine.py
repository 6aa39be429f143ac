"""The engine's loop: schedule, run, deliver. One thread touches the scheduler and the runner; all
others send it commands. Knows no queue, no database and no tensor."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Sequence, Set
from dataclasses import dataclass
from typing import TypeVar

from batching.meter import Meter
from batching.requests import (
    EngineConfig,
    EngineLane,
    EngineOutcome,
    EngineRequest,
    EngineStats,
)
from batching.scheduler import Scheduler
from batching.sequence import Sequence as Tracked
from models.runner import FinishReason, Runner, StepPlan
from penstock.errors import InvalidRequest, OutOfMemory, PromptError, Unavailable
from penstock.telemetry import get_logger

log = get_logger(__name__)

T = TypeVar("T")

OnDone = Callable[[EngineOutcome], None]
OnToken = Callable[[str], None]
OnAdmit = Callable[[Sequence[str]], Set[str]]

FIRST_BACKOFF = 0.05  #: seconds, doubled each time that `on_admit` is unavailable
LONGEST_BACKOFF = 2.0
LONGEST_WAIT = 1.0  #: of an idle loop, in seconds
COMMANDS_AT_ONCE = 1_000  #: read between two steps
JOIN_TIMEOUT = 30.0
#: Requests that failed by themselves, one after the other. A device in a broken state fails all it
#: is given, and faster than anybody could look: better to end, and leave the rest in the queue.
MAX_FAILURES_IN_A_ROW = 16


def admit_all(ids: Sequence[str]) -> Set[str]:
    """Admission that needs no one's leave."""
    return set(ids)


@dataclass(frozen=True, slots=True)
class _Ticket:
    on_done: OnDone
    on_token: OnToken | None


class Engine:
    """Runs requests on a runner. Every submitted request ends in exactly one `on_done`; when the
    loop dies, or gives up a runner that fails at everything, that is as cancelled.

    Callbacks run on the engine's thread and must be quick; what they raise is logged. `on_admit` is
    called before a prefill with the ids that were not admitted yet: it makes the admission durable
    and returns those that may run, the others end as cancelled. When it raises Unavailable the rows
    wait and are tried again, and live rows go on.
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
        self._scheduler = Scheduler(config)
        self._context = runner.info.context
        self._on_admit = on_admit
        self._clock = clock
        self._meter = Meter(clock())
        self._inbox: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._open: dict[str, _Ticket] = {}
        self._backoff = FIRST_BACKOFF
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
        """Never blocks. Raises InvalidRequest for a lane that does not exist."""
        if request.lane not in list(EngineLane):
            raise InvalidRequest(f"There is no lane {request.lane!r}.", param="lane")
        ticket, now = _Ticket(on_done, on_token), self._clock()
        with self._close_lock:
            if not self._closed:
                self._inbox.put(lambda: self._take(request, ticket, now))
                return
        _call(on_done, _unstarted(request, message="The engine has stopped."))

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
        now = self._clock()
        totals, rates, busy_since = self._meter.totals, self._meter.rates(now), self._busy_since
        return EngineStats(
            waiting=self._scheduler.waiting(),
            running=self._scheduler.running(),
            micro_batches=self._scheduler.micro_batches,
            row_limit=self._scheduler.limit.rows,
            steps=totals.steps,
            tokens_in=totals.tokens_in,
            tokens_out=totals.tokens_out,
            tokens_read=totals.tokens_read,
            tokens_needed=totals.tokens_needed,
            padded_share=totals.padded_share,
            rows_per_step=rates.rows_per_step,
            tokens_per_s=rates.tokens_per_s,
            busy_share=rates.busy_share,
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
        plan = self._scheduler.schedule(self._clock())
        if plan is None:
            self._busy_since = None
            self._await_command()
            return
        self._busy_since = self._clock()
        if plan.admit:
            plan = self._admit(plan)
        if plan is not None:
            self._step(plan)
        self._read_inbox()

    def _step(self, plan: StepPlan) -> None:
        began = self._clock()
        try:
            output = self._runner.step(plan)
            results = self._scheduler.update(plan, output)
        except Exception as error:
            self._failed(plan, error)
            return
        now = self._clock()
        self._meter.record(began, now, len(results), output.tokens_read, output.tokens_needed)
        for sequence, step in results:
            fresh = sequence.append(step, now)
            if fresh:
                on_token = self._open[sequence.id].on_token
                if on_token is not None:
                    _call(on_token, fresh)
            if step.finish is not None:
                self._failures_in_a_row = 0
                self._finish(sequence, step.finish, text=sequence.text)

    def _admit(self, plan: StepPlan) -> StepPlan | None:
        """Make the admission durable. None: nothing is left to prefill now."""
        rows = self._scheduler.rows_of(plan.micro_batch)
        new = [row.id for row in rows if not row.admitted]
        try:
            refused = set(new) - self._on_admit(new) if new else set()
        except Exception as error:
            self._scheduler.take_back(plan.micro_batch)
            self._scheduler.hold(self._clock() + self._backoff)
            known = isinstance(error, Unavailable)
            log.warning("admission.postponed", seconds=self._backoff, exc_info=not known)
            self._backoff = min(self._backoff * 2, LONGEST_BACKOFF)
            return None
        self._backoff = FIRST_BACKOFF
        left: StepPlan | None = plan
        if refused:
            left, gone = self._scheduler.refuse(plan, refused)
            for sequence in gone:
                self._finish(sequence, FinishReason.CANCELLED, message="Not admitted.")
        for row in rows:
            row.admitted = True
        if left is not None:
            self._meter.admitted(sum(len(row.prompt) for row in left.admit))
        return left

    def _failed(self, plan: StepPlan, error: Exception) -> None:
        """The rows of a failed step run again in smaller company; one that failed by itself ends.
        The others never notice."""
        out_of_memory = isinstance(error, OutOfMemory)
        log.warning(
            "micro_batch.failed",
            micro_batch=plan.micro_batch,
            rows=len(self._scheduler.rows_of(plan.micro_batch)),
            out_of_memory=out_of_memory,
            exc_info=not out_of_memory,
        )
        self._forget(plan.micro_batch)
        for sequence in self._scheduler.fail(plan.micro_batch, out_of_memory=out_of_memory):
            if out_of_memory:
                code = PromptError.OUT_OF_MEMORY
                message = "The device has not enough memory for this prompt, even alone."
            else:
                self._failures_in_a_row += 1
                code = PromptError.ENGINE
                message = f"The model raised {type(error).__name__} on this prompt."
            self._finish(sequence, FinishReason.ERROR, error=code, message=message)
        if self._failures_in_a_row >= MAX_FAILURES_IN_A_ROW:
            raise RuntimeError("the runner fails at whatever it is given")

    def _forget(self, micro_batch: int) -> None:
        try:
            self._runner.forget(micro_batch)
        except Exception:
            log.exception("micro_batch.not_forgotten", micro_batch=micro_batch)

    # ---- commands -------------------------------------------------------------------------

    def _await_command(self) -> None:
        """Sleep until a command comes or a waiting prompt is due."""
        due = self._scheduler.next_due()
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

    def _take(self, request: EngineRequest, ticket: _Ticket, now: float) -> None:
        outcome = self._refusal(request)
        if outcome is not None:
            _call(ticket.on_done, outcome)
            return
        self._open[request.id] = ticket
        self._scheduler.add(request, now)

    def _refusal(self, request: EngineRequest) -> EngineOutcome | None:
        """The outcome of a request that cannot even wait."""
        tokens = len(request.prompt)
        if self._draining or self._closed:
            return _unstarted(request, message="The engine is stopping.")
        if request.id in self._open:
            log.warning("request.repeated", id=request.id)
            return _unstarted(request, message="A request with this id is in the engine.")
        if not tokens:
            return _unstarted(request, PromptError.EMPTY, "The prompt has no tokens.")
        if tokens >= self._context:
            message = f"The prompt has {tokens} tokens; the context is {self._context}."
            return _unstarted(request, PromptError.TOO_LONG, message)
        return None

    def _cancel(self, id: str) -> None:
        sequence = self._scheduler.cancel(id)
        if sequence is not None:
            self._finish(sequence, FinishReason.CANCELLED)

    def _drain(self) -> None:
        self._draining = True
        for sequence in self._scheduler.clear_waiting():
            self._finish(sequence, FinishReason.CANCELLED, message="The engine is stopping.")

    def _close(self) -> None:
        with self._close_lock:
            self._closed = True
        while not self._inbox.empty():
            self._read_inbox()
        for id in list(self._open):
            self._cancel(id)
        self._read_inbox()

    # ---- answers --------------------------------------------------------------------------

    def _finish(
        self,
        sequence: Tracked,
        finish: FinishReason,
        *,
        text: str | None = None,
        error: PromptError | None = None,
        message: str | None = None,
    ) -> None:
        request = sequence.request
        outcome = EngineOutcome(
            id=request.id,
            text=text,
            finish=finish,
            prompt_tokens=len(request.prompt),
            completion_tokens=sequence.tokens,
            error=error,
            message=message,
            ttft=sequence.ttft,
        )
        _call(self._open.pop(request.id).on_done, outcome)


def _call(callback: Callable[[T], None], argument: T) -> None:
    try:
        callback(argument)
    except Exception:
        log.exception("callback.failed")


def _unstarted(
    request: EngineRequest, error: PromptError | None = None, message: str | None = None
) -> EngineOutcome:
    finish = FinishReason.CANCELLED if error is None else FinishReason.ERROR
    return EngineOutcome(request.id, None, finish, len(request.prompt), 0, error, message)


def _nothing() -> None:
    """Wakes the loop."""
